"""How long a run is: the one place that turns batches into steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def num_batches(dataloader: Iterable[Any]) -> int | None:
    """Return ``len(dataloader)``, or None for a loader that has no length."""
    try:
        return len(dataloader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def steps_per_epoch(batches: int | None, accumulation: int) -> int | None:
    """Return the windows of one epoch; the last one may hold fewer batches."""
    return None if batches is None else -(-batches // accumulation)


def last_window(batches: int, accumulation: int) -> int:
    """Return the batches in the last window of an epoch."""
    return batches % accumulation or min(batches, accumulation)


def epochs_begun(steps: int, per_epoch: int) -> int:
    """Return in how many epochs the first ``steps`` steps of a run lie."""
    return -(-steps // per_epoch)


def total_steps(
    per_epoch: int | None, num_epochs: int, max_steps: int | None
) -> int | None:
    """Return the planned steps of a whole run, or None when nothing bounds them."""
    if per_epoch is None:
        return max_steps
    planned = per_epoch * num_epochs
    return planned if max_steps is None else min(planned, max_steps)
