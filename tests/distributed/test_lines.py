"""All processes hear what each of them says, however much, and whoever else calls."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ranks import Ranks
from toy import make_trainer

from trainbus_distributed.connections import (
    open_sockets,
    own_address,
    plain_address,
)
from trainbus_distributed.group import Group
from trainbus_distributed.lines import (
    HELLO,
    SECRET,
    AheadError,
    Gathering,
    Line,
    LineError,
    accepted,
    announce,
)

#: More than a socket takes at once, so both ways must go on at the same time.
LARGE = 3 << 20


@pytest.fixture
def connected() -> Iterator[Callable[[int], list[list[Line]]]]:
    """Return the lines of each of so many processes, which are threads here."""
    opened: list[socket.socket] = []

    def lines_of(size: int) -> list[list[Line]]:
        rounds = range((size - 1).bit_length())
        ahead: dict[tuple[int, int], socket.socket] = {}
        behind: dict[tuple[int, int], socket.socket] = {}
        for number in rounds:
            for rank in range(size):
                other = (rank + (1 << number)) % size
                with socket.create_server(("127.0.0.1", 0)) as server:
                    ahead[rank, number] = socket.create_connection(server.getsockname())
                    behind[other, number] = server.accept()[0]
        opened.extend([*ahead.values(), *behind.values()])
        return [
            [Line(ahead[rank, number], behind[rank, number]) for number in rounds]
            for rank in range(size)
        ]

    yield lines_of
    for each in opened:
        each.close()


def everywhere(lines: list[list[Line]], own: Callable[[int, int], Any]) -> list[Any]:
    """Gather twice in each process; return what each has heard."""
    size = len(lines)

    def gathered(rank: int) -> list[Any]:
        found = []
        for turn in (0, 1):
            each = Gathering(lines[rank], own(rank, turn), size, 30.0)
            assert each.is_done(30.0)
            found.append(each.all_of(rank))
        return found

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(gathered, range(size)))


def test_time_in_which_a_process_computes_is_not_waited(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = connected(2)
    both = [Gathering(lines, "a", 2, 5.0) for lines in (first, second)]
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 100.0)
    assert [each.is_done(5.0) for each in both] == [True, True]


def hang_up_as_if_killed(lines: list[Line]) -> None:
    """Close the connections of a process, as the system does when it ends."""
    for line in lines:
        for each in (line._ahead, line._behind):
            each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("size", [*range(2, 10), 16, 17])
def test_all_hear_all_in_the_order_of_ranks(connected: Any, size: int) -> None:
    said = [[(rank, turn) for rank in range(size)] for turn in (0, 1)]
    lines = connected(size)
    assert everywhere(lines, lambda rank, turn: (rank, turn)) == [said] * size
    assert len(lines[0]) == (size - 1).bit_length()  # rounds: log2, not a ring


@pytest.mark.parametrize("size", [2, 3])
def test_more_than_a_connection_holds_is_told_both_ways(
    connected: Any, size: int
) -> None:
    heard = everywhere(connected(size), lambda rank, _: bytes([rank]) * LARGE)
    for both in heard:
        for each in both:
            assert [len(part) for part in each] == [LARGE] * size
            assert [part[0] for part in each] == list(range(size))


def test_who_waits_is_told_so_and_goes_on_later(connected: Any) -> None:
    first, second = connected(2)
    waits = Gathering(first, "a", 2, 30.0)
    assert not waits.is_done(0.01)
    other = Gathering(second, "b", 2, 30.0)
    assert waits.is_done(30.0)
    assert other.is_done(30.0)
    assert waits.all_of(0) == other.all_of(1) == ["a", "b"]


def test_who_never_comes_is_given_up(connected: Any) -> None:
    waits = Gathering(connected(2)[0], "a", 2, 0.05)
    with pytest.raises(LineError, match=r"timed out after 0.05 s"):
        waits.is_done(30.0)


def test_d35_who_is_gone_is_noticed_at_once_by_who_hears(connected: Any) -> None:
    first, second = connected(2)
    waits = Gathering(first, "a", 2, 5.0)
    hang_up_as_if_killed(second)
    with pytest.raises(LineError, match="connection closed by another process"):
        waits.is_done(30.0)


def test_d35_who_is_gone_is_noticed_at_once_by_who_sends(connected: Any) -> None:
    first, second = connected(2)
    hang_up_as_if_killed(second)
    with pytest.raises(LineError, match=r"connection (lost|closed)"):
        Gathering(first, bytes(LARGE), 2, 30.0).is_done(30.0)


def left_open_by_a_fork() -> tuple[int, list[float]]:
    """Return how a forked process ends, 0 if it holds no connection, and a sum."""
    strategy = make_trainer(None, None, plugins=[{"distributed": {}}]).strategy
    assert Group._sockets <= open_sockets()
    child = os.fork()
    if not child:
        os._exit(len(Group._sockets & open_sockets()))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, strategy.sum([1.0])


@pytest.mark.distributed
def test_d35_a_worker_that_outlives_its_process_keeps_no_connection_open(
    two: Ranks,
) -> None:
    assert two.run(left_open_by_a_fork) == [(0, [2.0])] * 2


def test_a_stranger_who_connects_is_no_process_of_the_run() -> None:
    secret = b"s" * SECRET
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        strangers = [b"", b"GET / HTTP/1.1\r\n\r\n", HELLO.pack(b"x" * SECRET, 0)]
        come: list[socket.socket] = []

        def come_in() -> None:
            for hello in (*strangers, HELLO.pack(secret, 1), HELLO.pack(secret, 0)):
                come.append(socket.create_connection(place))
                come[-1].sendall(hello)
                if not hello:
                    come[-1].shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=come_in)
        thread.start()
        first, second = accepted(server, secret, 2, 30.0)
        thread.join()
    # By the round that each has named, not in the order in which they came.
    assert second.getpeername() == come[3].getsockname()
    assert first.getpeername() == come[4].getsockname()
    for each in (*come, first, second):
        each.close()


def test_the_address_of_a_process_is_that_of_its_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        files = [each.fileno() for each in (line, server)]
        known = {(number, os.fstat(number).st_ino) for number in files}
        assert own_address(known) == "127.0.0.1"
        line.close()
        theirs.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),  # as a socket for both families tells it
        ("fe80::1", "fe80::1"),
    ],
)
def test_an_address_is_one_that_can_be_listened_on(text: str, address: str) -> None:
    assert str(plain_address(text)) == address


def test_d35_who_has_begun_a_pass_that_this_process_has_not_is_not_waited_for(
    connected: Callable[[int], list[list[Line]]],
) -> None:
    lines, other = connected(2)
    announce(other, (1, 5))
    with pytest.raises(AheadError):
        Gathering(lines, "a", 2, 5.0, begun=(1, 4)).is_done(5.0)


@pytest.mark.parametrize("begun", [(1, 5), (1, 6), (2, 0)])
def test_d35_who_has_begun_the_same_pass_or_one_of_another_run_is_waited_for(
    connected: Callable[[int], list[list[Line]]], begun: tuple[int, int]
) -> None:
    lines, other = connected(2)
    announce(other, (1, 5))
    theirs = Gathering(other, "b", 2, 5.0)
    own = Gathering(lines, "a", 2, 5.0, begun=begun)
    assert own.is_done(5.0)
    assert theirs.is_done(5.0)
    assert own.all_of(0) == ["a", "b"]
