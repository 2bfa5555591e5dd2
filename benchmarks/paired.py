"""Time a trainer and a bare loop in turns of a few steps, inside a run of the trainer.

The loader that the trainer reads stops after each block of batches, and makes as many
steps of a bare loop before it goes on. Whatever slows the machine for longer than some
milliseconds slows both halves of a pair, so a difference of a hundredth can be seen
where whole runs, one after the other, differ by a tenth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from workload import Contestant, Workload, train_block

#: Batches of a block: the shortest that makes reading the clock cost nothing.
BLOCK = 10


class Paired:
    """Batches of a workload, repeated, with blocks of a bare loop between them.

    Args:
        work: what is trained, by the trainer and by the bare loop.
        times: how often an epoch repeats the workload's batches.
    """

    def __init__(self, work: Workload, times: int = 1) -> None:
        self._work, self._times = work, times
        self._model = work.new_model()
        self._optimizer = work.new_optimizer(self._model)
        #: Seconds of the trainer and of the bare loop, block by block.
        self.seconds: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return len(self._work.train) * self._times

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches, clock = self._work.train.batches, time.perf_counter
        self._model.train()
        for _ in range(self._times):
            for start in range(0, len(batches), BLOCK):
                block = batches[start : start + BLOCK]
                began = clock()
                yield from block
                met = clock()
                train_block(self._work, self._model, self._optimizer, block)
                self.seconds.append((met - began, clock() - met))


def ratios(
    contestant: Contestant, work: Workload, run: Any, times: int = 1
) -> list[float]:
    """Return (time of a block / time of the bare block after it) of one run.

    The first block is left out: what happens once is no part of a step.
    """
    paired: Any = Paired(work, times)
    run(contestant, replace(work, train=paired))
    return [ours / bare for ours, bare in paired.seconds[1:]]


def summary(found: Sequence[float]) -> dict[str, float]:
    """Return the median of ratios with its 95 % interval, from order statistics."""
    ranked = sorted(found)
    half = 0.98 * len(ranked) ** 0.5
    low = ranked[max(0, round(len(ranked) / 2 - half))]
    high = ranked[min(len(ranked) - 1, round(len(ranked) / 2 + half))]
    return {
        "ratio": round(statistics.median(ranked), 4),
        "interval_low": round(low, 4),
        "interval_high": round(high, 4),
        "blocks": len(ranked),
    }
