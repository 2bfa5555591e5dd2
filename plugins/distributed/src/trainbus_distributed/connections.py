"""The connections of a group: which they are, and how to end every wait of the others.

To close them is what does it. gloo has no abort: one that waits in a backward pass,
say, is told of nothing until a connection breaks, or until ``timeout``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections import Counter
from collections.abc import Set
from ipaddress import IPv4Address, IPv6Address, ip_address

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


def own_address(sockets: Set[Socket]) -> str:
    """Return the address at which others reach this process: the one gloo has taken.

    gloo has found it, or was told it by ``GLOO_SOCKET_IFNAME``.

    Args:
        sockets: of this process, those to the others among them.
    """
    found: Counter[IPv4Address | IPv6Address] = Counter()
    for number, _ in sockets:
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(number)) as line,
        ):
            line.getpeername()  # raises for one that is not connected
            if line.family in (socket.AF_INET, socket.AF_INET6):
                found[plain_address(line.getsockname()[0])] += 1
    # The launcher's store may be on this machine, and the others on other ones.
    outside = {a: n for a, n in found.items() if not a.is_loopback}
    usual = Counter(outside or found).most_common(1)
    return str(usual[0][0]) if usual else socket.gethostbyname(socket.gethostname())


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Return the address that ``text`` is; ``::ffff:10.0.0.1`` is ``10.0.0.1``."""
    found = ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def let_go(sockets: Set[Socket]) -> None:
    """Close ``sockets``, as far as they are still open, in this process alone."""
    for number, _ in sockets & open_sockets():
        with contextlib.suppress(OSError):
            os.close(number)


def hang_up(sockets: Set[Socket]) -> None:
    """End both directions of ``sockets``, as far as they are still open."""
    for number, _ in sockets & open_sockets():
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(number)) as line,
        ):
            line.getpeername()  # raises for one that listens; gloo dies if it is shut
            line.shutdown(socket.SHUT_RDWR)
