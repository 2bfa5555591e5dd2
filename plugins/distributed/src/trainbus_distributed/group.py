"""The processes of a run, as torchrun started them, and what they tell one another.

Numbers of the host travel by gloo, so that they never make it wait for a GPU.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from trainbus_distributed.farewell import Farewell
from training import ConfigError

T = TypeVar("T")

#: What torchrun tells a process beside ``WORLD_SIZE``.
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")

CPU = torch.device("cpu")


class Group:
    """All processes of a run; joined once a process, however many trainers it builds.

    Args:
        timeout: seconds after which a process that waits for others gives up.
    Raises:
        ConfigError: the environment does not say which of them this one is.
    """

    _store: Any = None  # of the launcher; None: somebody else has joined them
    _number = 0  # of groups made so far: all processes make the same ones

    def __init__(self, timeout: float) -> None:
        if not dist.is_initialized():
            self._join(timeout)
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()
        #: The number of this process on its machine, which is that of its GPU.
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        #: How many of them are on its machine.
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.farewell = self._make_farewell(timeout)

    @staticmethod
    def _join(timeout: float) -> None:
        missing = [name for name in NEEDED if name not in os.environ]
        if missing:
            raise ConfigError(
                f"WORLD_SIZE is set and {missing[0]} is not; let torchrun start the "
                "processes, or unset WORLD_SIZE"
            )
        limit = timedelta(seconds=timeout)
        store, rank, size = next(rendezvous("env://", timeout=limit))
        # The launcher may keep its store, with all addresses, when it starts anew.
        life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        Group._store = PrefixStore(f"life/{life}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = PrefixStore("group", Group._store)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=limit
        )

    def _make_farewell(self, timeout: float) -> Farewell | None:
        Group._number += 1
        if Group._store is None:
            return None
        store = PrefixStore(f"farewell/{Group._number}", Group._store)
        farewell = Farewell(store, self.rank, self.size, timeout)
        farewell.listen()
        return farewell

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of ``values`` over all processes; waits for them."""
        return self.sum_later(values)()

    def sum_later(self, values: Sequence[float]) -> Callable[[], list[float]]:
        """Start to sum; what is returned waits for the result and returns it."""
        total = torch.tensor(values, dtype=torch.float64)
        work: Any = dist.all_reduce(total, async_op=True)

        def result() -> list[float]:
            work.wait()
            summed: list[float] = total.tolist()
            return summed

        return result

    def gather(self, value: T) -> list[T]:
        """Return each process's ``value``, in the order of ranks."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do ``work``; its result, or error, is everybody's."""
        told: list[Any] = [None]
        failure: Exception | None = None
        if self.rank == 0:
            try:
                told = [(work(), None)]
            except Exception as error:
                failure = error
                told = [(None, sendable(error))]
        dist.broadcast_object_list(told, src=0, device=CPU)
        if failure is not None:
            raise failure
        result, others = told[0]
        if others is not None:
            raise others
        answer: T = result
        return answer

    def on_each(self, work: Callable[[], T]) -> T:
        """Let each process do ``work``; an error of any is everybody's."""
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        told = self.gather(failure and sendable(failure))
        if failure is not None:
            raise failure
        for rank, theirs in enumerate(told):
            if theirs is not None:
                theirs.add_note(f"raised on rank {rank}")
                raise theirs
        return result

    def share_main(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite ``tensors`` with those of the main process."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def add_up(self, tensor: Tensor) -> None:
        """Overwrite ``tensor`` with its sum over all processes."""
        dist.all_reduce(tensor)

    def average(self, tensor: Tensor) -> None:
        """Overwrite ``tensor`` with its mean over all processes."""
        dist.all_reduce(tensor)
        tensor.div_(self.size)


def sendable(error: Exception) -> Exception:
    """Return ``error``, or what tells the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # our own, a line before
    except Exception:
        return RuntimeError(f"{type(error).__name__} on another process: {error}")
    return error
