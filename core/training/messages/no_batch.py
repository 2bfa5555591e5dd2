"""What is said of a loader that gives nothing in an epoch."""

from __future__ import annotations

from training.errors import DataError


def no_batch(epoch: int) -> DataError:
    """Return the error about an epoch, counted from 0, without a batch.

    The loader may be empty, or have given all that it has in an epoch before: what is
    iterated behind its ``__iter__`` may be exhausted, and nothing outside tells.
    """
    before = "" if epoch == 0 else " after it gave some in those before"
    return DataError(
        f"train_dataloader yielded no batch in epoch {epoch + 1}{before}; pass one "
        "that yields some each time that it is iterated, as a DataLoader or a list does"
    )
