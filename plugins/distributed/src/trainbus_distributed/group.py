"""The processes of a run, as torchrun started them, and what they tell one another.

What the hosts tell travels on lines of their own, so it never waits for a GPU; tensors
travel by the backend of torch for their device.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
from collections.abc import Callable, Sequence, Set
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from trainbus_distributed.connections import (
    Socket,
    hang_up,
    let_go,
    open_sockets,
    own_address,
)
from trainbus_distributed.farewell import Farewell, PeerFailedError, first_line
from trainbus_distributed.life import life_of
from trainbus_distributed.lines import Gathering, Line, Pass, announce, open_lines
from trainbus_distributed.waiting import Waiting
from training import ConfigError

T = TypeVar("T")

#: What torchrun tells a process beside ``WORLD_SIZE``.
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
#: What of it are numbers from 0, and what each is less than.
LIMITS = {"RANK": "WORLD_SIZE", "MASTER_PORT": "65536"}


class Group:
    """All processes of a run; joined once a process, however many trainers it builds.

    Args:
        timeout: seconds after which a process that waits for others gives up.
    Raises:
        ConfigError: the environment does not say which of them this one is.
        PeerFailedError: they have parted, since one of them has failed; or the others
            have not come.
    """

    _store: Any = None  # of the launcher; None: somebody else has joined them
    _sockets: Set[Socket] = frozenset()  # that lead to the others
    _lines: Sequence[Line] = ()  # likewise
    _begun: Pass = (0, 0)  # the latest pass of a model
    _number = 0  # of groups made so far: all processes make the same ones

    def __init__(self, timeout: float) -> None:
        Farewell.require_joined()
        if not dist.is_initialized():
            self._join(timeout)
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()
        #: The number of this process on its machine, which is that of its GPU.
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        #: How many of them are on its machine.
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._limit = timeout
        if not Group._lines:
            self._open_lines()
        self.farewell = self._make_farewell(timeout)
        self._waiting = Waiting(self._store, self.rank, self.size)

    @staticmethod
    def _join(timeout: float) -> None:
        missing = [name for name in NEEDED if name not in os.environ]
        if missing:
            raise ConfigError(
                f"WORLD_SIZE is set and {missing[0]} is not; let torchrun start the "
                "processes, or unset WORLD_SIZE"
            )
        limit = timedelta(seconds=timeout)
        for name, limit_of_it in LIMITS.items():
            require_number(name, limit_of_it)
        try:
            store, rank, size = next(rendezvous("env://", timeout=limit))
        except dist.DistError as error:
            raise PeerFailedError(
                f"the processes could not be joined at {os.environ['MASTER_ADDR']}, "
                f"port {os.environ['MASTER_PORT']}, within {timeout:g} s "
                "(distributed.timeout): not all have come, or the address is wrong or "
                f"taken; let torchrun start them all ({first_line(error)})"
            ) from error
        # The launcher may keep its store, with all addresses, when it starts anew.
        life = life_of(PrefixStore("lives", store), rank, size, timeout)
        Group._store = PrefixStore(f"life/{life}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = PrefixStore("group", Group._store)
        others = open_sockets()
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=limit
        )
        Group._sockets = open_sockets() - others
        if backend == "gloo":
            atexit.register(leave, os.getpid())

    def _open_lines(self) -> None:
        others = open_sockets()
        address = own_address(Group._sockets or others)
        Group._lines = open_lines(self.rank, self.size, self._limit, address)
        Group._sockets |= open_sockets() - others
        # A worker of a loader that outlives this process would keep them open, so that
        # the others would wait for the dead.
        os.register_at_fork(after_in_child=let_go_all)

    def _make_farewell(self, timeout: float) -> Farewell | None:
        Group._number += 1
        if Group._store is None:
            return None
        store = PrefixStore(f"farewell/{Group._number}", Group._store)
        farewell = Farewell(store, self.rank, self.size, timeout, hang_up_all)
        farewell.listen()
        return farewell

    def begin_run(self) -> None:
        """Count passes from here; called by all at the same place."""
        # A number that is the same wherever processes are in step.
        Group._begun = Waiting.number, 0

    def forget_passes(self) -> None:
        """Take no heed of passes until another run begins: an error has ended this one.

        Where all fail alike, each may have come to another batch.
        """
        Group._begun = Group._begun[0], sys.maxsize

    def begin_pass(self) -> None:
        """Tell that this process begins a pass; waits for nobody."""
        run, number = Group._begun
        Group._begun = run, number + 1
        announce(Group._lines, Group._begun)

    def sum(self, values: Sequence[float], asker: str = "") -> list[float]:
        """Return the sums of ``values`` over all processes; waits for them.

        Args:
            values: as many on each.
            asker: who calls, by the same name on each, to tell one call from another.
        """
        own = tuple(map(float, values))
        # In the order of ranks: the same bits on each.
        all_said = self._exchanged(own, f"sum {asker} of {len(own)}")
        return [sum(each) for each in zip(*all_said, strict=True)]

    def gather(self, value: T, asker: str = "") -> list[T]:
        """Return each process's ``value``, in the order of ranks."""
        said = self._exchanged(pickle.dumps(value), f"gather {asker}")
        return [pickle.loads(each) for each in said]  # of processes of this run

    def _exchanged(self, said: Any, what: str) -> Sequence[Any]:
        """Tell ``said``, wait for the others, and return what all have said."""
        call = self._waiting.begin(what)
        gathering = Gathering(
            Group._lines, (call, said), self.size, self._limit, Group._begun
        )
        self._waiting.until_done(gathering, call)
        calls, every = zip(*gathering.all_of(self.rank), strict=True)
        self._waiting.require_same(calls, call)
        return every

    def on_main(self, work: Callable[[], T], asker: str = "") -> T:
        """Let the main process do ``work``; its result, or error, is everybody's."""
        own, answer = b"", None
        failure: Exception | None = None
        if self.rank == 0:
            try:
                answer = work()
                own = pickle.dumps((answer, None))  # it may be what cannot be sent
            except Exception as error:
                failure = error
                own = pickle.dumps((None, sendable(error)))
        sent, *_ = self._exchanged(own, f"on_main {asker}")
        if self.rank:
            answer, failure = pickle.loads(sent)  # as above
        if failure is not None:
            raise failure
        result: T = answer  # type: ignore[assignment]  # None, if that is a T
        return result

    def on_each(self, work: Callable[[], T], asker: str = "") -> T:
        """Let each process do ``work``; an error of any is everybody's."""
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        told = self.gather(failure and sendable(failure), asker)
        if failure is not None:
            raise failure
        for rank, theirs in enumerate(told):
            if theirs is not None:
                theirs.add_note(f"raised on rank {rank}")
                raise theirs
        return result

    def share_main(self, tensor: Tensor) -> None:
        """Overwrite ``tensor`` with that of the main process."""
        dist.broadcast(tensor, src=0)

    def add_up(self, tensor: Tensor) -> None:
        """Overwrite ``tensor`` with its sum over all processes."""
        dist.all_reduce(tensor)

    def average(self, tensor: Tensor) -> None:
        """Overwrite ``tensor`` with its mean over all processes."""
        dist.all_reduce(tensor)
        tensor.div_(self.size)


def require_number(name: str, limit: str) -> None:
    """Refuse what the environment has in the place of a whole number.

    Args:
        name: of the variable.
        limit: what it is less than: a number, or another variable that is one.
    """
    value, most = os.environ[name], os.environ.get(limit, limit)
    if not value.isdecimal() or int(value) >= int(most):
        raise ConfigError(
            f"{name} is {value!r}, which is no whole number from 0 to {int(most) - 1}; "
            "let torchrun start the processes, or unset WORLD_SIZE"
        )


def let_go_all() -> None:
    """Close what a forked process has of the connections; they stay as they are."""
    for line in Group._lines:
        line.close()
    let_go(Group._sockets)


def leave(pid: int) -> None:
    """Leave the group before Python takes itself apart, at the end of a process.

    There a thread of gloo that still lets go of the last tensors would be killed, and
    the process with it, by SIGABRT: a run that is done would count as a failed one.

    Args:
        pid: of the process that has joined; a copy of it has no threads to wait for.
    """
    if pid == os.getpid() and dist.is_initialized() and not Farewell.is_said():
        hang_up(Group._sockets)  # so that no thread waits for the others
        dist.destroy_process_group()


def hang_up_all() -> None:
    """Leave the group for good: whoever waits for this process is told at once."""
    hang_up(Group._sockets)
    group: Any = dist.group.WORLD
    if torch.cuda.is_available() and group is not None:
        group.abort()  # what NCCL has under way


def sendable(error: Exception) -> Exception:
    """Return ``error``, or what tells the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # our own, a line before
    except Exception:
        return RuntimeError(f"{type(error).__name__} on another process: {error}")
    return error
