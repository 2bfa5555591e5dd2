"""Which life of a run its processes are in, as they tell one another.

A launcher that starts processes anew may keep its store, with the addresses of those
that are gone, and tells nobody a number that is new and the same for all: with several
torchruns each counts the failures of its own processes, and none that it has started
anew because those of another one have failed.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from trainbus_distributed.farewell import PeerFailedError, shown_ranks

#: Seconds between two looks for processes that have come.
BETWEEN = 0.05


def life_of(store: Any, rank: int, size: int, timeout: float) -> int:
    """Return the number of this life: the same on all processes, and none before.

    Rank 0 counts lives. Each other process counts its own, so that the answer to one
    that is gone is not taken for its own; and says that it has heard, so that rank 0
    does not leave when it has answered only the one that is gone.

    Args:
        store: shared by all of them, and by those of earlier lives.
        rank: of this process.
        size: how many they are.
        timeout: seconds to wait for the others.
    Raises:
        PeerFailedError: they have not come.
    """
    if rank == 0:
        return _answered(store, size, timeout)
    own = _came(rank)
    answer = f"{own}/{store.add(own, 1)}"
    try:
        store.wait([answer], timedelta(seconds=timeout))
    except dist.DistStoreError as error:
        raise PeerFailedError(not_come([0], size, timeout)) from error
    life = int(store.get(answer))
    store.set(_heard(life, rank), "1")
    return life


def _answered(store: Any, size: int, timeout: float) -> int:
    """Tell the others the number of a new life until all have heard it; return it."""
    life: int = store.add("begun", 1)
    until = time.monotonic() + timeout
    answered = [0] * size
    missing = list(range(1, size))
    while True:
        for rank in missing:
            # Of an earlier life, perhaps: then this one's is another number.
            number = store.add(_came(rank), 0)
            if number != answered[rank]:
                store.set(f"{_came(rank)}/{number}", str(life))
                answered[rank] = number
        missing = [rank for rank in missing if not store.check([_heard(life, rank)])]
        if not missing:
            return life
        if time.monotonic() >= until:
            raise PeerFailedError(not_come(missing, size, timeout))
        time.sleep(BETWEEN)


def _came(rank: int) -> str:
    return f"came/{rank}"


def _heard(life: int, rank: int) -> str:
    return f"heard/{life}/{rank}"


def not_come(ranks: list[int], size: int, timeout: float) -> str:
    """Return the sentence of a process whose others have not come.

    Args:
        ranks: of those.
        size: how many there are to be.
        timeout: seconds that they were waited for.
    """
    return (
        f"{shown_ranks(ranks, size)} {'has' if len(ranks) == 1 else 'have'} not come "
        f"for {timeout:g} s "
        "(distributed.timeout): not started yet, hanging, or gone; see what the "
        "launcher says, or raise the timeout"
    )
