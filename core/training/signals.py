"""Turn SIGTERM, SIGINT and SIGUSR1 into requests that the next boundary grants."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

#: Signals that end the run after a checkpoint.
STOPPING = (signal.SIGTERM, signal.SIGINT)
#: Signals that a run listens to.
HEARD = (*STOPPING, signal.SIGUSR1)


class Terminated(SystemExit):
    """The run leaves for a signal; a SystemExit of another class is somebody's own."""

    def __init__(self, number: signal.Signals) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)


class Abandoned(BaseException):
    """Unwinds an evaluation because the run leaves; the loop catches it.

    No Exception: nobody who goes on after an error shall go on after this.
    """


@contextmanager
def handled(
    on_stop: Callable[[signal.Signals], None],
    on_save: Callable[[signal.Signals], None] | None,
) -> Iterator[None]:
    """Install handlers inside the block; put the former ones back after.

    The first SIGTERM or SIGINT calls ``on_stop``; a second one leaves at once, as if
    no handler were there: files that are complete stay valid. SIGUSR1 calls
    ``on_save``, or where that is None is one more signal that stops. A handler that
    somebody else installed is called as well. Outside the main thread Python delivers
    no signals, and nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former: dict[signal.Signals, object] = {}
    stopping: list[signal.Signals] = []

    def chain(number: signal.Signals, frame: FrameType | None) -> None:
        handler = former[number]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        if stopping:
            log.warning("%s again: leaving at once", name.name)
            raise interruption(name)
        stopping.append(name)
        on_stop(name)
        chain(name, frame)

    def save(number: int, frame: FrameType | None) -> None:
        assert on_save is not None
        on_save(signal.Signals(number))
        chain(signal.Signals(number), frame)

    try:
        for number in STOPPING:
            former[number] = signal.signal(number, stop)
        usr1 = stop if on_save is None else save
        former[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, usr1)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class _Shield:
    """A ``worker_init_fn`` that keeps a worker at work when the whole group is told.

    Ctrl-C and a job's SIGTERM reach the workers, too; one that dies of it would take
    the run along before its checkpoint.

    Args:
        init: the loader's own function, or None.
        is_training: shared with the workers; once it is 0, SIGTERM ends them again,
            which is how a process that exits ends its own.
    """

    def __init__(self, init: Callable[[int], object] | None, is_training: Any) -> None:
        self._init = init
        self._is_training = is_training

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        if self._init is not None:
            self._init(worker)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if not self._is_training.value:
            os._exit(0)


@contextmanager
def shielded(*loaders: Any) -> Iterator[None]:
    """Start the workers of these loaders so that a signal to all leaves them be."""
    found = [each for each in loaders if getattr(each, "num_workers", 0)]
    former = [getattr(each, "worker_init_fn", None) for each in found]
    is_training = multiprocessing.RawValue("b", 1) if found else None
    try:
        for each, init in zip(found, former, strict=True):
            each.worker_init_fn = _Shield(init, is_training)
        yield
    finally:
        if is_training is not None:
            is_training.value = 0
        for each, init in zip(found, former, strict=True):
            each.worker_init_fn = init


def iterate_shielded(loader: Any) -> Iterator[Any]:
    """Return ``iter(loader)``; a shielded worker is deaf until its shield is up."""
    if not isinstance(getattr(loader, "worker_init_fn", None), _Shield):
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        return iter(loader)  # a worker inherits what is blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interruption(number: signal.Signals) -> BaseException:
    """Return what to raise for a signal: exit code 130 for SIGINT, 128 + n else."""
    if number == signal.SIGINT:
        return KeyboardInterrupt("interrupted; the run can be resumed")
    return Terminated(number)
