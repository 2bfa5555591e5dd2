"""Learning rates as a closed form of the number of advances.

A closed form has no history: what it gives at update 1000 does not depend on how the
run got there, so a resumed, extended or re-planned run is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Schedules whose shape depends on where they end.
NEEDS_TOTAL = ("cosine", "linear")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning rate as a function of how often the schedule has advanced.

    Attributes:
        type: ``"cosine"``, ``"linear"``, ``"constant"`` or ``"step"``.
        total: advances of the whole run, for ``cosine`` and ``linear``; else None.
        warmup: advances until the full rate; the rate rises linearly from
            ``base / (warmup + 1)`` at the first update.
        min_lr: lowest rate after the warmup, absolute, of every parameter group.
        min_factor: the same as a fraction of the group's own rate; the larger counts.
        gamma: factor of each drop of ``step``.
        step_size: advances between two drops of ``step``.
    """

    type: str
    total: int | None = None
    warmup: int = 0
    min_lr: float = 0.0
    min_factor: float = 0.0
    gamma: float = 0.1
    step_size: int | None = None

    def lr_at(self, advances: int, base_lr: float) -> float:
        """Return the rate of a group with ``base_lr`` after ``advances`` advances.

        ``cosine`` without warmup is equation 5 of Loshchilov and Hutter, SGDR (2017),
        with one cycle: ``min + (base - min) * (1 + cos(pi * t / T)) / 2``.
        """
        if advances < self.warmup:
            return base_lr * (advances + 1) / (self.warmup + 1)
        floor = min(base_lr, max(self.min_lr, self.min_factor * base_lr))
        past = advances - self.warmup
        if self.type == "constant":
            return base_lr
        if self.type == "step":
            assert self.step_size is not None
            drops = past // self.step_size
            return float(max(floor, base_lr * self.gamma**drops))
        return floor + (base_lr - floor) * self._shape(past)

    def _shape(self, past: int) -> float:
        """Return the height in [0, 1] of a falling schedule, ``past`` after warmup."""
        assert self.total is not None
        progress = min(1.0, past / max(1, self.total - self.warmup))
        if self.type == "linear":
            return 1.0 - progress
        return 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_advances(warmup: float, total: int | None) -> int:
    """Return the warmup in advances; a value below 1 is a fraction of ``total``."""
    if warmup >= 1 or warmup == 0:
        return int(warmup)
    assert total is not None
    return math.ceil(warmup * total)
