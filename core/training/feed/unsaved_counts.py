"""Name what a sampler counts by itself, which no checkpoint holds."""

from __future__ import annotations

import logging
from typing import Any

from training.feed.loader_parts import parts_of

log = logging.getLogger(__name__)

#: (class and attribute) -> whole number.
Counts = dict[tuple[str, str], int]


def counts_in(indices: Any) -> Counts:
    """Return the whole numbers that a sampler, and those inside of it, keep.

    Not those of one with ``set_epoch``, which is told where it is.
    """
    return {
        (type(part).__name__, name): value
        for part in parts_of(indices)
        if not hasattr(part, "set_epoch")
        for name, value in getattr(part, "__dict__", {}).items()
        if type(value) is int
    }


def warn_of_counts(indices: Any, before: Counts) -> None:
    """Warn of each number that went up by one in an epoch, as a count of them does."""
    for each, count in counts_in(indices).items():
        if count == before.get(each, count) + 1:
            log.warning(
                "the %s of train_dataloader counts epochs by itself (%s), which no "
                "checkpoint holds: a resumed run would read another order; give it a "
                "set_epoch(epoch) that sets it, which is called before each epoch",
                *each,
            )
