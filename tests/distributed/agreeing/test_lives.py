"""Processes that are started anew find each other, whatever earlier ones have left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from trainbus_distributed.farewell import PeerFailedError
from trainbus_distributed.group import Group
from trainbus_distributed.life import life_of
from training import ConfigError

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

#: What each process does: it joins the others, and hears each.
JOINS = """
from trainbus_distributed.group import Group
group = Group(10.0)
print(group.gather("here"))
"""
#: And, as the last of all, whether it is still joined.
TELLS = """
import atexit, os
import torch.distributed as dist
atexit.register(lambda: print("joined:", dist.is_initialized()))
"""


def started(
    port: int, restarts: Sequence[int], script: str = JOINS
) -> list[subprocess.Popen[str]]:
    """Start a process for each of ``restarts``: what its launcher says of restarts."""
    common = {
        "WORLD_SIZE": str(len(restarts)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                **common,
                "RANK": str(rank),
                "TORCHELASTIC_RESTART_COUNT": str(number),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, number in enumerate(restarts)
    ]


def test_launchers_that_keep_their_store_need_not_count_alike() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    # The second: one launcher has seen a process fail, the other one a launcher leave.
    # The third: a launcher has come, and nobody has failed.
    for restarts in ((0, 0), (0, 1), (0, 1)):
        processes = started(store.port, restarts)
        printed = [each.communicate(timeout=120)[0] for each in processes]
        assert [each.returncode for each in processes] == [0, 0], "".join(printed)
        assert all("['here', 'here']" in each for each in printed)


#: A copy of the process ends, as one does that Python has not made.
COPIED = """
if not (pid := os.fork()):
    atexit._run_exitfuncs()
    os._exit(0)
os.waitpid(pid, 0)
print(group.gather("still here"))
"""


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("", "joined: False"),
        # A thread may wait for others who never come: the end of it closes all.
        ("group.farewell.explained(ValueError())", "joined: True"),
        # The connections are its own, too: it shall not end them.
        (COPIED, "['still here', 'still here']\njoined: False"),
    ],
    ids=["done", "failed", "copied"],
)
def test_who_is_done_leaves_the_others_before_python_ends(then: str, told: str) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = started(store.port, (0, 0), f"{TELLS}{JOINS}{then}")
    printed = [each.communicate(timeout=120)[0] for each in processes]
    assert [each.returncode for each in processes] == [0, 0], "".join(printed)
    assert all(each.endswith(f"{told}\n") for each in printed), printed


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.parametrize(
    ("wrong", "kind", "says"),
    [
        ({"RANK": "x"}, ConfigError, "RANK is 'x', which is no .* from 0 to 1;"),
        ({"RANK": "2"}, ConfigError, "RANK is '2', which is no .* from 0 to 1;"),
        ({"MASTER_PORT": "70000"}, ConfigError, "MASTER_PORT is '70000', .* to 65535"),
        ({"RANK": "0"}, PeerFailedError, "joined at 127.0.0.1, port .*, within 2 s"),
        ({"RANK": "1"}, PeerFailedError, "wrong or taken; let torchrun start them"),
    ],
    ids=["no rank", "too high a rank", "no port", "no others", "no first"],
)
def test_a_launch_by_hand_that_is_wrong_is_told_in_a_sentence(
    wrong: dict[str, str], kind: type[Exception], says: str, monkeypatch: Any
) -> None:
    right = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**right, "MASTER_PORT": free_port(), **wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=says) as caught:
        Group._join(2.0)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that stand for processes."""
    with ThreadPoolExecutor() as found:
        yield found


def joining(
    threads: ThreadPoolExecutor, store: dist.Store, size: int
) -> list[Future[int]]:
    return [threads.submit(life_of, store, rank, size, 60.0) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_get_one_number_that_is_new(threads: ThreadPoolExecutor, size: int) -> None:
    store, seen = dist.HashStore(), set()
    for _ in range(3):
        lives = {each.result() for each in joining(threads, store, size)}
        assert len(lives) == 1
        assert not lives & seen
        seen |= lives


def test_who_is_gone_before_it_was_answered_is_not_taken_for_who_comes(
    threads: ThreadPoolExecutor,
) -> None:
    store = dist.HashStore()
    for rank in (1, 0):  # neither has met the other
        with pytest.raises(PeerFailedError):
            life_of(store, rank, 2, 0.1)
    main = threads.submit(life_of, store, 0, 2, 60.0)
    while store.get("came/1/1") != b"2":  # it answers who is gone
        assert not main.done()
    other = threads.submit(life_of, store, 1, 2, 60.0)
    assert main.result() == other.result() == 2


def test_a_run_of_another_size_joins_at_the_same_store(
    threads: ThreadPoolExecutor,
) -> None:
    store = dist.HashStore()
    for number, size in enumerate((3, 2, 4), 1):
        found = [each.result() for each in joining(threads, store, size)]
        assert found == [number] * size


@pytest.mark.parametrize(
    ("rank", "size", "which"),
    [
        (0, 2, "rank 1 of 2 has"),
        (0, 3, "ranks 1, 2 of 3 have"),
        (0, 64, r"ranks 1, 2, 3, 4, 5, 6, 7, 8, \.\.\. of 64 have"),
        (2, 3, "rank 0 of 3 has"),
    ],
)
def test_who_waits_in_vain_says_for_whom(rank: int, size: int, which: str) -> None:
    with pytest.raises(PeerFailedError, match=f"{which} not come for 0.1 s"):
        life_of(dist.HashStore(), rank, size, 0.1)
