"""Let a signal end a command as Ctrl-C does: what it had begun to write goes, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from training.signals.forks import given_back_in_forks
from training.signals.handlers import are_delivered, are_heard, interruption
from training.signals.heard import HANGING_UP, STOPPING

__all__ = ["leaving"]


@contextmanager
def leaving() -> Iterator[None]:
    """Raise, inside the block, in place of the end that a signal makes of a process.

    Whoever is there already stays, and what was ignored stays ignored. A run inside
    hears the signal in place of this, and saves first.
    """
    with ExitStack() as stack:
        if are_delivered():
            for number in STOPPING:
                if signal.getsignal(number) == signal.SIG_DFL:
                    stack.enter_context(_Leave(number).installed())
        yield


class _Leave:
    """A handler that raises where the system would end the process.

    Python's table alone is asked who is there: to ask the system, as ``Former`` does,
    loads ctypes, which takes longer than a command that only looks around.
    """

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self._pid = os.getpid()
        self._has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # its stack is a copy, and nothing there is its
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        is_echo = self._has_come and self._number in HANGING_UP
        if not are_heard() and not is_echo:
            self._has_come = True
            raise interruption(self._number)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Be the handler inside the block, but in no process that is forked there."""
        signal.signal(self._number, self)
        is_told_to_forks = self._number == signal.SIGTERM
        try:
            with given_back_in_forks(self if is_told_to_forks else None):
                yield
        finally:
            if self.is_replaced:
                self.put_back()

    @property
    def is_replaced(self) -> bool:
        """Whether this is the handler still."""
        return signal.getsignal(self._number) is self

    def put_back(self) -> None:
        """Let the system end the process again."""
        signal.signal(self._number, signal.SIG_DFL)
