"""A run's counters without the run: every boundary, and what is due there.

Plugins are asked through the methods that decide in a real run; nothing is computed,
read from the disk or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.loop import length as plan

__all__ = ["Rehearsal", "Stop"]


#: Steps that are gone through one by one, in a few seconds.
MOST_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Stop:
    """A boundary at which something is measured or may be saved.

    Attributes:
        reason: ``"step"`` inside an epoch, ``"epoch_end"``, or ``"stop"`` at
            ``max_steps``.
        epoch: completed epochs.
        step: attempted updates.
        is_stopping: whether it is the last boundary of the run.
        is_evaluated: whether a plugin measures the model here.
    """

    reason: str
    epoch: int
    step: int
    is_stopping: bool
    is_evaluated: bool

    @property
    def ends_row(self) -> bool:
        """Whether the loss of the epoch is reported here."""
        return self.reason in ("epoch_end", "stop")


class Rehearsal:
    """Stands in for a trainer where a plugin reads counters and settings only.

    Args:
        batches: batches of an epoch.
        num_epochs: passes over the data in all.
        max_steps: steps after which the run ends, or None.
        accumulation: batches of a full window.
        save_dir: folder of the run.
        plugins: every plugin of the run by name.
    """

    def __init__(
        self,
        batches: int,
        num_epochs: int,
        max_steps: int | None,
        accumulation: int,
        save_dir: Path,
        plugins: Mapping[str, Any],
    ) -> None:
        self.batches_per_epoch = batches
        self.num_epochs = num_epochs
        self.max_steps = max_steps
        self.gradient_accumulation_steps = accumulation
        self.save_dir = save_dir
        self.plugins = plugins
        self.epoch = self.step = 0
        self._is_asked = False
        self._stops: list[Stop] | None = None
        self._evaluators = [p for p in plugins.values() if hasattr(p, "evaluate")]
        self._cadences = [p.cadence for p in plugins.values() if hasattr(p, "rehearse")]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the last partial window included."""
        steps = plan.steps_per_epoch(
            self.batches_per_epoch, self.gradient_accumulation_steps
        )
        assert steps is not None
        return steps

    @property
    def total_steps(self) -> int:
        """Planned steps of the whole run."""
        steps = plan.total_steps(self.steps_per_epoch, self.num_epochs, self.max_steps)
        assert steps is not None
        return steps

    @property
    def update(self) -> int:
        """Applied updates, if none is skipped."""
        return self.step

    @property
    def is_stopping(self) -> bool:
        """Whether the boundary at hand is the last one of the run."""
        return self.epoch >= self.num_epochs or self.step == self.max_steps

    def request_evaluation(self, reason: str) -> None:
        """Evaluate at this boundary."""
        self._is_asked = True

    @property
    def is_counted(self) -> bool:
        """Whether ``stops`` can be gone through; a mistyped length takes for ever."""
        return self.total_steps <= MOST_STEPS

    def stops(self) -> list[Stop]:
        """Return the boundaries at which something happens, in their order.

        They are found once: every step is asked for. Only for a run that
        ``is_counted``.
        """
        if self._stops is None:
            assert self.is_counted
            self._stops = [stop for stop in self._boundaries() if self._matters(stop)]
        return self._stops

    def _matters(self, stop: Stop) -> bool:
        """Whether something is measured or may be saved there."""
        if stop.reason != "step" or stop.is_evaluated:
            return True
        return any(cadence.is_step_due(stop.step) for cadence in self._cadences)

    def _boundaries(self) -> Iterator[Stop]:
        self.epoch = self.step = 0
        length, total = self.steps_per_epoch, self.total_steps
        while self.step < total:
            self.step += 1
            ends_epoch = self.step % length == 0
            is_evaluated = self._step_is_evaluated()
            if ends_epoch:
                self.epoch += 1
                is_due = self._is_due("epoch_end") or is_evaluated
                yield self._stop("epoch_end", is_due)
            elif self.step == total:
                yield self._stop("stop", self._is_due("max_steps") or is_evaluated)
            else:
                yield self._stop("step", is_evaluated)

    def fresh_stops(self, monitor: str | None) -> Iterator[tuple[Stop, bool]]:
        """Yield each boundary with whether ``monitor`` was measured on its weights."""
        measured_at = 0
        for stop in self.stops():
            own = monitor == "train_loss"
            if stop.ends_row if own else stop.is_evaluated:
                measured_at = stop.step
            yield stop, monitor is not None and measured_at == stop.step

    def checks(self, monitor: str) -> list[Stop]:
        """Return the boundaries that deliver a fresh value of ``monitor``."""
        own = monitor == "train_loss"
        return [s for s in self.stops() if (s.ends_row if own else s.is_evaluated)]

    def _step_is_evaluated(self) -> bool:
        self._is_asked = False
        for plugin in self._evaluators:
            if hasattr(plugin, "is_due"):
                plugin.on_step_end(self)
        return self._is_asked

    def _is_due(self, reason: str) -> bool:
        """Ask who can tell; anybody else is taken to measure at each epoch's end."""
        return any(
            plugin.is_due(self, reason) if hasattr(plugin, "is_due") else True
            for plugin in self._evaluators
        )

    def _stop(self, reason: str, is_evaluated: bool) -> Stop:
        return Stop(reason, self.epoch, self.step, self.is_stopping, is_evaluated)
