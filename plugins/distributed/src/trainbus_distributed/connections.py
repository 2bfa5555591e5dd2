"""The connections of a group: to close them ends every wait of the others.

Nothing else does. gloo has no abort: one that waits in a backward pass, say, is told of
nothing until a connection breaks, or until ``timeout``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Set

#: Where a system lists the files that a process has open; Windows does not.
OPEN = "/dev/fd"

#: Number of an open file, and of what it is: the first may be given to another one.
Socket = tuple[int, int]


def open_sockets() -> Set[Socket]:
    """Return the sockets that this process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(OPEN):
            with contextlib.suppress(OSError):  # the list itself is closed by now
                seen = os.fstat(int(name))
                if stat.S_ISSOCK(seen.st_mode):
                    found.add((int(name), seen.st_ino))
    return found


def hang_up(sockets: Set[Socket]) -> None:
    """End both directions of ``sockets``, as far as they are still open."""
    for number, _ in sockets & open_sockets():
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(number)) as line,
        ):
            line.getpeername()  # raises for one that listens; gloo dies if it is shut
            line.shutdown(socket.SHUT_RDWR)
