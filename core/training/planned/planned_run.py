"""A run that is only planned: how long it is, and what a plugin says it would do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from training.errors import did_you_mean
from training.messages.tables import count
from training.planned.length import RunLength

__all__ = ["NOBODY_EVALUATES", "Boundary", "Plan", "PlannedRun"]

#: Boundaries are gone through one by one, in a few seconds.
MOST_STEPS = 1_000_000
#: What is said where validation rows are given and nothing is made of them.
NOBODY_EVALUATES = (
    "there are validation rows, but no plugin measures them: nothing is made of them; "
    "enable the plugin 'evaluation'"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one plugin would do in a run: its answer to the hook ``plan``.

    Attributes:
        lines: label of a section of the plan -> lines; plugins may share a label.
            Those of the plan are ``"stop"``, ``"rate"`` and ``"deleted"``.
        files: each file or folder that would be written -> a remark, or ``""``.
        conflicts: a sentence for each setting that does not go together with the run.
    """

    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    conflicts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Boundary:
    """A point between two steps at which a run may measure or save.

    Attributes:
        reason: ``"step"`` inside an epoch, ``"epoch_end"``, or ``"stop"`` at
            ``max_steps``.
        epoch: completed epochs.
        step: attempted updates.
        is_stopping: whether it is the last boundary of the run.
    """

    reason: str
    epoch: int
    step: int
    is_stopping: bool


@dataclass(frozen=True)
class PlannedRun:
    """The counts of a run without the run; nothing is computed, read or written.

    Attributes:
        batches_per_epoch: batches of an epoch.
        num_epochs: passes over the data in all.
        max_steps: steps after which the run ends, or None.
        gradient_accumulation_steps: batches of a full window.
        save_dir: folder of the run.
        lr: the learning rate of the optimizer.
        plugins: every plugin of the run, by name.
        has_validation: whether there is validation data.
        evaluations: steps after which something is measured, ascending; none where the
            run is too long to be counted.
        metrics: what may be measured; None: one that evaluates does not say; empty:
            nobody evaluates.
        is_exact: whether these are all; else ``/`` and more may follow each.
        batch_size: rows of a full batch of all processes; None: unknown.
        processes: that compute the run.
    """

    batches_per_epoch: int
    num_epochs: int
    max_steps: int | None
    gradient_accumulation_steps: int
    save_dir: Path
    lr: float = 0.0
    plugins: Mapping[str, Any] = field(default_factory=dict)
    has_validation: bool = True
    evaluations: Sequence[int] = ()
    metrics: Sequence[str] | None = None
    is_exact: bool = False
    batch_size: int | None = None
    processes: int = 1

    #: What stands in place of numbers that are not counted.
    uncounted: ClassVar[str] = (
        f"not counted: the run has more than {MOST_STEPS:,} steps"
    )

    @property
    def length(self) -> RunLength:
        """The same counts, as the loop has them."""
        return RunLength(
            self.batches_per_epoch,
            self.num_epochs,
            self.gradient_accumulation_steps,
            self.max_steps,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the last partial window included."""
        steps = self.length.steps_per_epoch
        assert steps is not None
        return steps

    @property
    def total_steps(self) -> int:
        """Planned steps of the whole run."""
        total = self.length.total_steps
        assert total is not None
        return total

    @property
    def is_counted(self) -> bool:
        """Whether boundaries can be gone through; a mistyped length takes for ever."""
        return self.total_steps <= MOST_STEPS

    @property
    def epoch_ends(self) -> range:
        """Steps at which an epoch is complete."""
        return range(self.steps_per_epoch, self.total_steps + 1, self.steps_per_epoch)

    def every(self, steps: int | None) -> range:
        """Return each multiple of ``steps`` in the run; none for None and 0."""
        return range(steps, self.total_steps + 1, steps) if steps else range(0)

    def boundaries(self, also: Iterable[int] = ()) -> list[Boundary]:
        """Return epoch ends, evaluations, the end, and ``also``, in their order."""
        assert self.is_counted
        steps = {*self.epoch_ends, *self.evaluations, self.total_steps, *also}
        return [self._boundary(step) for step in sorted(steps)]

    def checks(self, metric: str) -> list[Boundary]:
        """Return the boundaries that deliver a fresh value of ``metric``."""
        if metric == "train_loss":
            return [at for at in self.boundaries() if at.reason != "step"]
        return [self._boundary(step) for step in self.evaluations]

    def name_of(self, plugin: Any) -> str:
        """Return what ``plugin`` is called in this run."""
        return next(name for name, each in self.plugins.items() if each is plugin)

    def metric_conflicts(self, metric: str, owner: str) -> list[str]:
        """Return a sentence if nobody will deliver ``metric``.

        Args:
            metric: that is watched.
            owner: the option that names it, as ``"early_stopping.monitor"``.
        """
        if metric == "train_loss" or self.metrics is None:
            return []
        if not self.metrics:
            return [f"{owner} is {metric!r}, but no plugin evaluates"]
        if (metric if self.is_exact else metric.partition("/")[0]) in self.metrics:
            return []
        names = ", ".join(self.metrics)
        hint = did_you_mean(metric, self.metrics)
        return [f"{owner} is {metric!r}, but this run reports: {names}{hint}"]

    def length_conflicts(self, value: int | None, unit: str, option: str) -> list[str]:
        """Return a sentence if ``option`` counts more than the run has.

        Args:
            value: of the option; None: it counts nothing.
            unit: ``"step"`` or ``"epoch"``.
            option: with its plugin, as ``"evaluation.every_n_steps"``.
        """
        limit = self.total_steps if unit == "step" else self.num_epochs
        if value is None or value <= limit:
            return []
        return [f"{option} is {value:,}, but the run has {count(limit, unit)}"]

    def _boundary(self, step: int) -> Boundary:
        epoch, rest = divmod(step, self.steps_per_epoch)
        is_last = step == self.total_steps
        reason = "step" if rest and not is_last else "stop" if rest else "epoch_end"
        return Boundary(reason, epoch, step, is_last)
