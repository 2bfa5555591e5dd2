"""Workers that outlive an epoch: when they end, and what they draw meanwhile.

Left to the garbage collector each would be waited for, 10 s, in the middle of anything:
their queues are collected first, so that they are never told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from training.feed.workers import kill_workers


def end_workers(loader: Any, kills: bool = False) -> None:
    """End the workers of ``loader`` that persist.

    Args:
        loader: torch's, or a copy of one.
        kills: rather than wait while they load a sample, at most 10 s for each; one
            that is killed might hold a lock.
    """
    batches, loader._iterator = loader._iterator, None
    if kills:
        kill_workers(batches)
    # By name: a traceback may hold it, too.
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


@contextmanager
def ending(loaders: Iterable[Any]) -> Iterator[None]:
    """End the workers that persist which are begun inside, of torch's own loaders.

    Those that ran before are left to their owner. Where the run fails, or leaves for a
    signal, they are killed.
    """
    # A class of its own may read with those of another loader inside, which it keeps.
    plain = [each for each in loaders if type(each) is DataLoader]
    resting = [o for o in plain if o.persistent_workers and o._iterator is None]
    fails = True
    try:
        yield
        fails = False
    finally:
        for loader in resting:
            end_workers(loader, kills=fails)
