"""Let a signal end a command as Ctrl-C does: what it had begun to write goes, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from training.signals.forks import restored_in_forks
from training.signals.handlers import are_delivered, interruption
from training.signals.heard import HANGING_UP, STOPPING
from training.signals.sigaction import PreviousHandler, is_free

__all__ = ["leaving"]


@contextmanager
def leaving() -> Iterator[None]:
    """Raise, inside the block, in place of the end that a signal makes of a process.

    Whoever is there already stays, below Python too, and what was ignored stays
    ignored. A closed terminal may be told along with another signal, or twice: all of
    it is one end, and what comes after the first cuts no clearing up. Not for a block
    that trains, or that waits below Python for other processes.
    """
    pid = os.getpid()
    heard: set[int] = set()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # its stack is a copy, and nothing there is its
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        is_echo = bool(heard) and (number in HANGING_UP or heard <= {*HANGING_UP})
        heard.add(number)
        if not is_echo:
            raise interruption(signal.Signals(number))

    with ExitStack() as stack:
        for number in filter(is_free, STOPPING if are_delivered() else ()):
            former = PreviousHandler(number, leave)
            stack.callback(_put_back, former)
            if number == signal.SIGTERM:
                stack.enter_context(restored_in_forks(former))
        yield


def _put_back(former: PreviousHandler) -> None:
    if former.is_replaced:  # else another came, which is not ours to take away
        former.put_back()
