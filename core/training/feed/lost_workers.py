"""End workers at once; tell from an error that one died, or did not answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from inspect import getattr_static
from multiprocessing import active_children
from multiprocessing.connection import wait
from traceback import walk_tb
from typing import Any

from torch.utils.data._utils import signal_handling

from training.errors import DataError
from training.messages.error_texts import add_note, repr_of, text_of

#: What torch says, also from its SIGCHLD handler in the middle of anything else.
_LOST = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_LATE = re.compile(r"DataLoader timed out after ([\d.]+) seconds")


def loss_in(
    error: BaseException,
    name: str,
    place: str,
    owned: Callable[[set[int]], Collection[int]],
    is_awaited: bool,
) -> DataError | None:
    """Return what to raise if ``error`` says that a worker of a loader is lost.

    Args:
        error: one that was met anywhere in the run.
        name: of the loader.
        place: which batch is awaited, and from which worker, where known.
        owned: which processes of these numbers are workers of the loader.
        is_awaited: whether a batch of this loader is what torch may have waited for.
    """
    text = text_of(error)
    lost, late = _LOST.search(text), _LATE.search(text)
    # torch's handler speaks of any loader's worker, in the middle of any code.
    if lost is not None and owned({*map(int, lost[1].split(","))}):
        return DataError(
            f"{name} lost a worker ({text.splitlines()[0]}) before {place} "
            "arrived; mostly the machine ran out of memory: use fewer workers or "
            "smaller batches, and go on from the last checkpoint"
        )
    if late is not None and is_awaited:
        return DataError(
            f"{name}: {place} did not arrive within {late[1]} s; look at its "
            "samples, or give the loader a longer timeout"
        )
    return None


@contextmanager
def reading_validation(
    loader: Any, name: str, batch: Callable[[], int | None]
) -> Iterator[None]:
    """Name a worker for validation that is lost below; leave none behind a failure.

    Args:
        loader: that is read below, by whomever.
        name: of it among several; else ``""``.
        batch: returns the number of the batch that comes next; None: it is not known.
    Raises:
        DataError: a worker that begins below, or one of ``loader``'s that persist, is
            lost, or does not answer in time.
    """
    lasting = {each.pid for each in workers_of(getattr(loader, "_iterator", None))}
    others = {each.pid for each in active_children()} - lasting
    try:
        yield
    except Exception as error:
        whose = f"val_dataloader[{name!r}]" if name else "val_dataloader"
        number = batch()
        place = "a batch" if number is None else f"batch {number}"
        loss = loss_in(error, whose, place, lambda lost: lost - others, True)
        kill_held(error)
        if loss is None:
            raise
        raise loss from error


def held_by(error: BaseException) -> Iterator[tuple[Any, bool]]:
    """Yield torch's iterators with workers that were read from here as ``error`` came.

    Those that a user's function reads are its own. With each, whether it was being made
    there; then nobody else knows of it.
    """
    reader = ""
    for frame, _ in walk_tb(error.__traceback__):
        own, module = frame.f_locals.get("self"), frame.f_globals.get("__name__", "")
        if workers_of(own):
            is_new = frame.f_code.co_name == "__init__"
            if is_new or reader.startswith("training."):
                yield own, is_new
        elif not module.startswith("torch."):
            reader = module


def kill_held(error: BaseException) -> None:
    """Kill the workers of iterators that ``error`` holds, and no loader does.

    Left to the garbage collector such an iterator goes in a cycle with its queues, in
    any order: torch may then close descriptors that were closed before, and are
    somebody else's by now. Until then its workers would live.

    Args:
        error: and those it came from; it is noted if ending them fails.
    """
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and not any(each is known for known in found):
            found.append(each)
            left += [each.__context__, each.__cause__]
            for batches, is_new in held_by(each):
                # Workers that persist are their loader's, once they have begun.
                if is_new or not batches._persistent_workers:
                    try:
                        kill_workers(batches)
                    except Exception as later:
                        text = repr_of(later)
                        add_note(error, f"then ending its workers failed: {text}")


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
    workers, text = workers_of(batches), text_of(error)
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


def workers_of(batches: Any) -> Sequence[Any]:
    """Return the processes that an iterator of torch's has begun; of others, none.

    Other libraries may call anything their workers: threads, or how many there are.
    """
    is_torchs = getattr_static(batches, "_worker_pids_set", None) is not None
    return getattr(batches, "_workers", ()) if is_torchs else ()


def kill_workers(batches: Any) -> None:
    """Kill the workers of an iterator of torch's, if it has any and they live."""
    if not workers_of(batches) or batches._shutdown:
        return
    # Torch's own end waits for each worker; and unless told not to watch them, it
    # raises in the middle of anything when one is gone.
    watch: Any = signal_handling
    try:
        if batches._worker_pids_set:  # not where it failed before it had begun them all
            watch._remove_worker_pids(id(batches))
    except RuntimeError:  # said in here, of one that has just died; then it watches on
        watch._remove_worker_pids(id(batches))
        raise
    finally:
        batches._shutdown = True
        _kill(batches)


def _kill(batches: Any) -> None:
    # Of the thread that pins what they load, which nobody else would tell any more.
    if (done := getattr(batches, "_pin_memory_thread_done_event", None)) is not None:
        done.set()
    for worker in batches._workers:
        worker.kill()
        worker.join(5)  # seconds; what a dead disk holds cannot be killed
    for queue in batches._index_queues:  # each has a thread, which waits for a reader
        queue.cancel_join_thread()
        queue.close()
