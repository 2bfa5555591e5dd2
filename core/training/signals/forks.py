"""Let SIGTERM end a process that is forked while a run is on, as without a run.

``multiprocessing`` ends its processes by it, and waits for them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.signals.sigaction import PreviousHandler

#: What stood for SIGTERM before each run that is on, the innermost last.
_replaced: list[PreviousHandler] = []
_forking = threading.local()


@contextmanager
def restored_in_forks(former: PreviousHandler | None) -> Iterator[None]:
    """Put ``former`` back in each process that is forked inside the block."""
    if former is None:
        yield
        return
    _replaced.append(former)
    try:
        yield
    finally:
        _replaced.pop()


def _hold() -> None:
    """Keep SIGTERM back: Python forgets one that comes before the child is up."""
    _forking.mask = None
    if _replaced:
        # Asked for first: a handler that raises here shall leave nothing blocked.
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_go() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _give_back() -> None:
    try:
        for former in reversed(_replaced):
            if not former.is_replaced:
                break  # a handler of another's, which is not ours to take away
            former.put_back()
    finally:
        _let_go()


if hasattr(os, "register_at_fork"):  # for good: nobody can take it back
    os.register_at_fork(
        before=_hold, after_in_parent=_let_go, after_in_child=_give_back
    )
