"""Keep the workers of a loader at work when a signal reaches the whole group."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from training.signals.heard import HEARD


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
        for number in HEARD:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)
        if hasattr(signal, "pthread_sigmask"):
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
    is_shielded = isinstance(getattr(loader, "worker_init_fn", None), _Shield)
    if not is_shielded or not hasattr(signal, "pthread_sigmask"):
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        return iter(loader)  # a worker inherits what is blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
