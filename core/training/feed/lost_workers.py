"""Tell from the error of a loader that a worker of it died, or did not answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from training.errors import DataError
from training.messages.error_texts import text_of

#: What torch says, also from its SIGCHLD handler in the middle of anything else.
_LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_LATE = re.compile(r"DataLoader timed out after ([\d.]+) seconds")


def loss_in(
    error: BaseException, place: str, are_own: Callable[[set[int] | None], bool]
) -> DataError | None:
    """Return what to raise if ``error`` says that a worker for training is lost.

    Args:
        error: one that was met anywhere in the run.
        place: which batch is awaited, and from which worker.
        are_own: whether processes of these numbers are workers of the loader; of None,
            whether it has any.
    """
    text = text_of(error)
    lost, late = _LOST.search(text), _LATE.search(text)
    # torch's handler speaks of any loader's worker, in the middle of any code.
    if lost is not None and are_own({*map(int, lost[1].split(","))}):
        return DataError(
            f"train_dataloader lost a worker ({text.splitlines()[0]}) before {place} "
            "arrived; mostly the machine ran out of memory: use fewer workers or "
            "smaller batches, and go on from the last checkpoint"
        )
    if late is not None and are_own(None):
        return DataError(
            f"train_dataloader: {place} did not arrive within {late[1]} s; look "
            "at these samples, or give the loader a longer timeout"
        )
    return None


def require_worker(batches: Any, error: Exception) -> None:
    """Say that a worker is lost, where all that is known is that its line broke.

    The kernel closes a dying process's sockets before anybody can tell that it died,
    and one that exits takes their files away first: torch, which asks once whether its
    workers live, may then raise the error of the socket.

    Args:
        batches: torch's iterator that raised ``error``, or any other one.
        error: one that ``__next__`` raised.
    Raises:
        RuntimeError: a worker of it has died, in torch's own words.
    """
    # Another library may call anything its workers: threads, or how many there are.
    workers = getattr(batches, "_worker_pids_set", False) and batches._workers
    text = text_of(error)
    is_cut = isinstance(error, OSError | EOFError) or "Pin memory thread exited" in text
    # What the data set itself raised in a worker comes from one that lives.
    if not workers or not is_cut or "in DataLoader worker process" in text:
        return
    wait([worker.sentinel for worker in workers], timeout=1)  # seconds; it is dying
    for worker in workers:
        # With time to wait, join waits for the exit code where the sentinel is closed.
        worker.join(0.01)
        if worker.exitcode:
            words = f"DataLoader worker (pid(s) {worker.pid}) exited unexpectedly"
            raise RuntimeError(words) from error
