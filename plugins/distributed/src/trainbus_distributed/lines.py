"""Lines from each process to a few others: all hear what each says, in log2(W) rounds.

In round k a process sends all that it knows to the one 2^k ranks ahead, and hears from
the one 2^k behind, so that it knows twice as much: an all-gather after Bruck et al.,
"Efficient algorithms for all-to-all communications in multiport message-passing
systems" (1997). The caller's own thread sends and receives. gloo leaves that to threads
of its own, each of which must be given a core first, and goes round a ring.
"""

from __future__ import annotations

import math
import pickle
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from training import ConfigError, TrainbusError

#: What goes before each message: its length in bytes.
LENGTH = struct.Struct("!Q")
#: Bytes that are received at once.
CHUNK = 1 << 18
#: Bytes of what a process says of itself when it connects: a secret, and the round.
SECRET = 16
HELLO = struct.Struct(f"!{SECRET}sH")
#: Seconds within which it does so; meanwhile others wait.
SOON = 2.0
#: Connections of strangers that may wait beside those of the run.
BACKLOG = 16


#: Which run of this process it is, and how many passes of a model it has begun in it.
Pass = tuple[int, int]


class AheadError(Exception):
    """Who is to be heard has begun a pass of the model that this process has not."""


class LineError(TrainbusError, RuntimeError):
    """The connection to another process is closed, or nothing has come on it."""


class Line:
    """The two connections of one round; neither call but ``move`` waits.

    Args:
        ahead: leads to the process that is sent to.
        behind: comes from the process that is heard.
    """

    def __init__(self, ahead: socket.socket, behind: socket.socket) -> None:
        ahead.setblocking(False)
        behind.setblocking(False)
        # Else the system keeps small messages back, to send several as one.
        ahead.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ahead, self._behind = ahead, behind
        self._unsent, self._heard = bytearray(), bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(behind, selectors.EVENT_READ)

    def close(self) -> None:
        """Let go of both, in this process."""
        self._selector.close()
        self._ahead.close()
        self._behind.close()

    def put(self, message: bytes) -> None:
        """Send ``message``, as much of it as the system takes now."""
        self._unsent += LENGTH.pack(len(message)) + message
        self._send()

    def take(self) -> bytes | None:
        """Return the next message; None: all of it is not sent, or not here, yet."""
        begins = LENGTH.size
        if self._unsent or len(self._heard) < begins:
            return None
        (length,) = LENGTH.unpack_from(self._heard)
        if len(self._heard) < begins + length:
            return None
        message = bytes(self._heard[begins : begins + length])
        del self._heard[: begins + length]
        return message

    def move(self, seconds: float) -> None:
        """Wait until something can be sent or received, at most ``seconds``; do that.

        Raises:
            LineError: the other process is gone.
        """
        if self._unsent:
            self._selector.register(self._ahead, selectors.EVENT_WRITE)
        try:
            ready = self._selector.select(seconds)
        finally:
            if self._unsent:
                self._selector.unregister(self._ahead)
        for key, _ in ready:
            if key.fileobj is self._ahead:
                self._send()
            else:
                self._hear()

    def _send(self) -> None:
        try:
            sent = self._ahead.send(self._unsent)
        except BlockingIOError:  # the other one does not read at the moment
            return
        except OSError as error:
            raise LineError(f"connection lost: {error}") from error
        del self._unsent[:sent]

    def _hear(self) -> None:
        try:
            came = self._behind.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise LineError(f"connection lost: {error}") from error
        if not came:
            raise LineError("connection closed by another process")
        self._heard += came


class Gathering:
    """One all-gather, under way from here on.

    Args:
        lines: of this process, in the order of rounds.
        own: what this process says, which can be pickled.
        size: how many processes there are.
        timeout: seconds of waiting after which it fails.
        begun: the latest pass that this process has begun.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        own: Any,
        size: int,
        timeout: float,
        begun: Pass = (0, 0),
    ) -> None:
        self._lines, self._size = lines, size
        self._begun = begun
        self._timeout, self._until = timeout, math.inf
        #: What is known: of this process, of the one behind it, and so on.
        self._known = [own]
        self._round = 0
        self._say()

    def is_done(self, seconds: float) -> bool:
        """Go on with it for at most ``seconds``; return whether it is complete.

        Raises:
            AheadError: the other one has gone on without it.
            LineError: another process is gone, or ``timeout`` is over.
        """
        start = time.monotonic()
        until = start + seconds
        if self._until == math.inf:  # time in which this process computes is not waited
            self._until = start + self._timeout
        while self._round < len(self._lines):
            line = self._lines[self._round]
            message = line.take()
            if message is not None:
                heard = pickle.loads(message)  # of another process of this run
                if isinstance(heard, tuple):
                    self._heed(heard)
                    continue
                self._known += heard
                self._round += 1
                self._say()
                continue
            now = time.monotonic()
            if now >= self._until:
                raise LineError(f"timed out after {self._timeout:g} s")
            if now >= until:
                return False
            line.move(min(until, self._until) - now)
        return True

    def all_of(self, rank: int) -> list[Any]:
        """Return what each process has said, in the order of ranks.

        Args:
            rank: of this process.
        """
        return [self._known[(rank - other) % self._size] for other in range(self._size)]

    def _heed(self, begun: Pass) -> None:
        """Refuse to wait for one who will never come: it would have come before."""
        run, number = self._begun
        if begun[0] == run and begun[1] > number:
            raise AheadError

    def _say(self) -> None:
        if self._round < len(self._lines):
            # In the last round only what the other one does not know.
            unknown = self._size - len(self._known)
            self._lines[self._round].put(pickle.dumps(self._known[:unknown]))


def announce(lines: Sequence[Line], begun: Pass) -> None:
    """Tell one other process of a pass that this one begins; waits for nobody.

    In a pass it may wait for the others where it can hear nobody.

    Args:
        lines: of this process, in the order of rounds.
        begun: that.
    """
    if lines:
        lines[0].put(pickle.dumps(begun))


def open_lines(rank: int, size: int, timeout: float, own: str) -> list[Line]:
    """Connect this process with those 1, 2, 4, ... ranks ahead and behind.

    Called by all, which torch has joined: it tells the addresses.

    Args:
        rank: of this process.
        size: how many there are.
        timeout: seconds to wait for one of them.
        own: address at which others reach this process.
    Raises:
        ConfigError: they cannot.
        LineError: another one does not connect.
    """
    distances = [1 << k for k in range((size - 1).bit_length())]
    secret = secrets.token_bytes(SECRET)
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    with socket.create_server(
        (own, 0), family=family, backlog=BACKLOG + len(distances)
    ) as server:
        where: list[Any] = [None] * size
        dist.all_gather_object(where, (own, server.getsockname()[1], secret))
        ahead = []
        for number, distance in enumerate(distances):
            other = (rank + distance) % size
            host, port, theirs = where[other]
            hello = HELLO.pack(theirs, number)
            ahead.append(_connected(other, (host, port), hello, timeout))
        behind = accepted(server, secret, len(distances), timeout)
    return [Line(*both) for both in zip(ahead, behind, strict=True)]


def _connected(
    other: int, place: tuple[str, int], hello: bytes, timeout: float
) -> socket.socket:
    try:
        made = socket.create_connection(place, timeout)
        made.sendall(hello)
    except OSError as error:
        raise ConfigError(
            f"rank {other} cannot be reached at {place[0]}, port {place[1]} ({error}); "
            "let the machines reach each other there, or name the interface that they "
            "share in GLOO_SOCKET_IFNAME"
        ) from error
    return made


def accepted(
    server: socket.socket, secret: bytes, count: int, timeout: float
) -> list[socket.socket]:
    """Return the connections that others make, in the order of rounds."""
    found: dict[int, socket.socket] = {}
    server.settimeout(timeout)
    while len(found) < count:
        try:
            came, _ = server.accept()
        except TimeoutError as error:
            raise LineError("timed out: another process does not connect") from error
        told = _hello(came)
        # Whoever else finds this port is nobody of this run.
        if told is None or told[0] != secret:
            came.close()
        else:
            found[told[1]] = came
    return [found[number] for number in range(count)]


def _hello(came: socket.socket) -> tuple[bytes, int] | None:
    """Return secret and round of who has connected; None: it does not say."""
    came.settimeout(SOON)
    told = b""
    try:
        while len(told) < HELLO.size:
            part = came.recv(HELLO.size - len(told))
            if not part:
                return None
            told += part
    except OSError:
        return None
    secret, number = HELLO.unpack(told)
    return secret, number
