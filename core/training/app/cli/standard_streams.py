"""Guard what a command prints: by itself, by plugins and by libraries."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from training.messages.guarded_streams import Guarded, guarded

__all__ = ["standard_streams"]


@contextlib.contextmanager
def standard_streams() -> Iterator[Guarded]:
    """Guard ``sys.stdout`` and ``sys.stderr`` inside the block; yield the first.

    Afterwards a stream that could not be written leads nowhere, so that Python's own
    last flush does not fail, which would change the exit code.
    """
    _fill_closed()
    former = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        output, errors = (guarded(nowhere if s is None else s) for s in former)
        sys.stdout, sys.stderr = output, errors
        try:
            yield output
        finally:
            sys.stdout, sys.stderr = former
            for stream in former:
                _settle(stream, nowhere)


def _fill_closed() -> None:
    """Open /dev/null in place of standard streams that are closed.

    Else the next file that is opened, such as a checkpoint, would have the number of
    one, and get what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is taken
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _settle(stream: Any, nowhere: Any) -> None:
    """Lead ``stream`` to ``nowhere`` if what it holds back cannot be written."""
    try:
        getattr(stream, "flush", lambda: None)()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere.fileno(), stream.fileno())
