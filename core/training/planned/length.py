"""How long a run is: the one place that turns batches into steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class RunLength(NamedTuple):
    """The length of a run as planned; a value, made anew whenever it is asked for.

    Attributes:
        batches_per_epoch: None for a loader without a length.
        num_epochs: passes over the data in all.
        accumulation: batches of a full window.
        max_steps: steps after which the run ends, or None.
    """

    batches_per_epoch: int | None
    num_epochs: int
    accumulation: int = 1
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Windows of one epoch; the last one may hold fewer batches."""
        batches = self.batches_per_epoch
        return None if batches is None else num_windows(batches, self.accumulation)

    @property
    def total_steps(self) -> int | None:
        """Planned steps of the whole run, or None when nothing bounds them."""
        per_epoch, most = self.steps_per_epoch, self.max_steps
        if per_epoch is None:
            return most
        planned = per_epoch * self.num_epochs
        return planned if most is None else min(planned, most)

    @property
    def epochs_begun(self) -> int:
        """Epochs that at least one step is planned in."""
        per_epoch, total = self.steps_per_epoch, self.total_steps
        return (
            epochs_begun(total, per_epoch) if total and per_epoch else self.num_epochs
        )

    @property
    def last_window(self) -> int | None:
        """Batches in the last window of an epoch."""
        batches = self.batches_per_epoch
        if batches is None:
            return None
        return batches % self.accumulation or min(batches, self.accumulation)

    def is_over(self, epoch: int, step: int) -> bool:
        """Whether all is done after so many complete epochs and steps."""
        return epoch >= self.num_epochs or (
            self.max_steps is not None and step >= self.max_steps
        )


def num_batches(dataloader: Iterable[Any]) -> int | None:
    """Return ``len(dataloader)``, or None for a loader that has no length."""
    try:
        return len(dataloader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def num_windows(batches: int, accumulation: int) -> int:
    """Return in how many windows an epoch's first batches lie."""
    return -(-batches // accumulation)


def epochs_for(max_steps: int | None, steps_per_epoch: int | None) -> int:
    """Return how many passes a run makes that was given no number of them.

    As many as ``max_steps`` takes: without a length at most one a step; else 1.
    """
    return epochs_begun(max_steps, steps_per_epoch or 1) if max_steps else 1


def epochs_begun(steps: int, per_epoch: int) -> int:
    """Return in how many epochs the first ``steps`` steps of a run lie."""
    return -(-steps // per_epoch)
