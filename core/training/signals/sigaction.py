"""What the operating system does for a signal, which Python's table may not know.

``faulthandler.register`` and libraries written in C install handlers without a word to
the ``signal`` module: it goes on to tell what was there before, and putting that back
would take theirs away.
"""

from __future__ import annotations

import ctypes
import functools
import signal
from collections.abc import Callable
from typing import Any

__all__ = ["PreviousHandler", "address_of", "is_free", "is_ignored"]

#: Bytes that hold a ``struct sigaction`` of any system; glibc's has 152.
_SIZE = 1024
#: SIG_IGN, and SIG_DFL before it, where a handler's address would stand.
_IGNORED = 1


class PreviousHandler:
    """What stood for a signal before ``handler`` was installed; installs it.

    Attributes:
        handler: of Python's table: a callable, SIG_DFL, or None for one of C.
        is_below_python: whether a handler stood there that Python does not call.
    """

    def __init__(self, number: signal.Signals, handler: Callable[..., None]) -> None:
        self._number = number
        self._installed = handler
        self._action = _action(number)
        self.handler = signal.signal(number, handler)
        self.is_below_python = self.handler is None
        if self._action is not None:
            known = (0, _IGNORED, address_of(number))
            self.is_below_python = _first_word(self._action) not in known

    def put_back(self) -> None:
        """Install again, for Python and for the system, what stood there before."""
        signal.signal(self._number, self.handler or signal.SIG_DFL)
        if self._action is not None:
            _libc_sigaction()(self._number, self._action, None)

    @property
    def is_replaced(self) -> bool:
        """Whether the handler that was installed for it stands there still."""
        return signal.getsignal(self._number) is self._installed


def is_ignored(number: signal.Signals) -> bool:
    """Whether the signal does nothing now, as under nohup."""
    address = address_of(number)
    if address is None:
        return signal.getsignal(number) == signal.SIG_IGN
    return address == _IGNORED


def is_free(number: signal.Signals) -> bool:
    """Whether nobody stands for the signal, and the system does what it does."""
    is_default = signal.getsignal(number) == signal.SIG_DFL
    return is_default and not address_of(number)  # of one below Python it is not 0


def address_of(number: signal.Signals) -> int | None:
    """Return where the system's handler is; one for all of Python's. None: no POSIX."""
    action = _action(number)
    return None if action is None else _first_word(action)


def _action(number: signal.Signals) -> bytes | None:
    """Return the system's ``struct sigaction``; None where there is no such thing."""
    buffer = ctypes.create_string_buffer(_SIZE)
    try:
        failed = _libc_sigaction()(number, None, buffer)
    except (AttributeError, OSError, TypeError):  # no POSIX
        return None
    return None if failed else buffer.raw


@functools.cache  # each library object makes a class of its own
def _libc_sigaction() -> Any:
    return ctypes.CDLL(None).sigaction


def _first_word(action: bytes) -> int:
    """Return where the handler is; the word stands first wherever PyTorch runs."""
    return ctypes.c_size_t.from_buffer_copy(action).value
