"""Keep a signal that asks for a checkpoint until there is a run that hears it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.signals.heard import SAVING

__all__ = ["DeferredSignalHandler", "held", "was_noted"]


class DeferredSignalHandler:
    """A handler that notes a signal which would else end the process.

    ``handled`` takes it for a signal that came as the run began.
    """

    def __init__(self) -> None:
        self._addresses: dict[signal.Signals, int | None] = {}
        self._noted: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal."""
        self._noted.add(number)

    def hold(self) -> None:
        """Stand in for the system's own doing; whoever is there already stays."""
        # Here, since it loads ctypes: see ``handled``.
        from training.signals.sigaction import address_of, is_free

        for number in SAVING:
            if is_free(number):
                signal.signal(number, self)
                self._addresses[number] = address_of(number)

    def let_go(self) -> bool:
        """Put back what stood there, unless another came; return if one is noted."""
        from training.signals.sigaction import address_of

        for number, address in self._addresses.items():
            if signal.getsignal(number) is self and address_of(number) == address:
                signal.signal(number, signal.SIG_DFL)
        self._addresses.clear()
        return bool(self._noted)

    def take(self, number: int) -> bool:
        """Return whether the signal is noted, once."""
        is_noted = number in self._noted
        self._noted.discard(number)
        return is_noted


def was_noted(handler: object, number: int) -> bool:
    """Whether the former handler noted the signal while the run was made."""
    return isinstance(handler, DeferredSignalHandler) and handler.take(number)


@contextmanager
def held() -> Iterator[DeferredSignalHandler]:
    """Keep SIGUSR1 inside the block from ending the process before a run hears it.

    Outside the main thread Python lets nobody install a handler, and it does.
    """
    holding = DeferredSignalHandler()
    if threading.current_thread() is threading.main_thread():
        holding.hold()
    try:
        yield holding
    finally:
        holding.let_go()
