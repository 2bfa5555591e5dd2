"""Runs of one process share its global generators: one in a hook of another, say."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from training.hardware.rng import (
    load_rng_state,
    rank_seed,
    rng_state,
    seed_everything,
)

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: (process, thread, device) of each run that is on; a fork inherits its parent's.
_ON: list[tuple[int, int, torch.device]] = []


@contextmanager
def among_others(trainer: Checkpointable) -> Iterator[None]:
    """Note that a run is on, and leave to its caller what that would have drawn.

    That is where this run sets the generators, to a seed or a loaded state: an outer
    run, or a search that draws its next trial, would draw the same numbers again after
    each. What else it draws moves them on.
    Where one of another thread is on, neither knows what the other draws: a warning.
    """
    here = os.getpid(), threading.get_ident()
    on = [(thread, at) for process, thread, at in [*_ON] if process == here[0]]
    outer = [device for thread, device in on if thread == here[1]]
    if len(on) > len(outer):
        log.warning(
            "a run of another thread of this process is on, and both draw from the "
            "global generators of random, numpy and torch: what they draw, and so what "
            "they come to, is another each time; run each in a process of its own"
        )
    sets = _seed_of(trainer) is not None or trainer.resumption is not None
    device = outer[-1] if outer else trainer.device
    before = rng_state(device) if sets else None
    this = *here, trainer.device
    _ON.append(this)
    try:
        yield
    finally:
        _ON.remove(this)
        if before is not None:
            if trainer.loop is not None:  # a later save of this run needs its state
                trainer.loop.draws.end(trainer.state.progress.place)
            load_rng_state(before, device)


def seed_run(trainer: Checkpointable) -> None:
    """Seed all generators with the seed of a run, if it has one."""
    if (seed := _seed_of(trainer)) is not None:
        seed_everything(seed)


def _seed_of(trainer: Checkpointable) -> int | None:
    if trainer.rank:  # else dropout would be the same on every process
        return rank_seed(trainer.order_seed, trainer.rank)
    return trainer.seed
