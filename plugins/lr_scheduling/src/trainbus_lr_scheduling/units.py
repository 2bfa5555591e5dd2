"""Whether a scheduler object counts updates or epochs, where nobody has said it."""

from __future__ import annotations

import itertools
import math
from typing import Any

from trainbus_lr_scheduling.lengths import first_cycle, first_part, scheduler_length
from training.plugin import count

#: Of the highest rate: above it a warmup counts as over.
NEARLY_ALL = 0.9
#: Of the way that a rate goes: below it the rate hardly moves.
HARDLY = 0.05


def why_updates(
    scheduler: Any,
    epochs: int,
    updates: int,
    batches: int,
    by_epochs: list[float] | None,
    by_updates: list[float] | None,
) -> str | None:
    """Return why a schedule cannot be meant by epochs, as a clause; None if it can.

    Args:
        scheduler: a fresh torch scheduler.
        epochs: of the whole run.
        updates: of the whole run.
        batches: of the whole run.
        by_epochs: the rates it would use with one advance an epoch; None: unknown.
        by_updates: with one advance an update.
    """
    length, warmup = scheduler_length(scheduler), first_part(scheduler)
    if length == epochs or updates <= epochs:
        return None
    run = f"this run has {count(epochs, 'epoch')} and {count(updates, 'update')}"
    # Lengths in batches are those of people who forgot about accumulation.
    least, most = 0.9 * updates, 1.1 * batches
    if length is not None and least <= length <= most:
        return f"it is {count(length, 'advance')} long, and {run}"
    cycle = first_cycle(scheduler)
    # By epochs it never restarts, by updates after about an epoch or several.
    if cycle > epochs and least / epochs <= cycle <= most:
        return f"its first cycle is {count(cycle, 'advance')} long, and {run}"
    if warmup >= epochs:
        return f"its first part is {count(warmup, 'advance')} long, and {run}"
    if length is not None or by_epochs is None or by_updates is None:
        return None
    if not all(map(math.isfinite, by_updates)):
        return None
    return _hardly_begins(by_epochs, by_updates, run)


def _hardly_begins(
    by_epochs: list[float], by_updates: list[float], run: str
) -> str | None:
    """Tell by the rates whether epochs are too few for what updates would do."""
    top = max(by_updates)
    is_rising = all(a <= b for a, b in itertools.pairwise(by_epochs))
    if is_rising and by_epochs[-1] < NEARLY_ALL * top:
        return (
            f"by epochs it never leaves its warmup (a rate of {by_epochs[-1]:g} at "
            f"most, {top:g} by updates), and {run}"
        )
    whole = top - min(by_updates)
    # What has come to its end half-way was not made for so many updates.
    rest = abs(by_updates[len(by_updates) // 2] - by_updates[-1])
    moved = max(by_epochs) - min(by_epochs)
    if moved < HARDLY * whole <= rest:
        return (
            f"by epochs it hardly moves (from {by_epochs[0]:g} to {by_epochs[-1]:g}, "
            f"by updates to {by_updates[-1]:g}), and {run}"
        )
    return None
