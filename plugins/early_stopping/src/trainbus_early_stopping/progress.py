"""What early stopping has learnt so far, and the arithmetic of an improvement."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

from training.plugin import gain

Cause = Literal["patience", "nonfinite"]


def improved(value: float, best: float, mode: str, min_delta: float) -> bool:
    """Whether ``value`` beats ``best`` by more than ``min_delta`` (same unit as both).

    A gain of exactly ``min_delta`` is none, also where rounding made it a little more:
    1.0 - 0.999 is 0.0010000000000000009. NaN never improves.
    """
    if min_delta > 0:
        min_delta += 4 * sys.float_info.epsilon * max(abs(value), abs(best))
    return gain(value, best, mode) > min_delta


@dataclass
class Progress:
    """Counts and bests of one run; finite numbers and strings only.

    Attributes:
        reference: last value that counted as an improvement; gains are taken from it.
        best_seen: best finite value, however small its gain.
        best_step: step at which ``best_seen`` was measured.
        best_epoch: completed epochs then.
        wait: misses in a row.
        checks: fresh values so far.
        nonfinite_checks: those among them that were NaN or infinite.
        stopped_by: what asked for the stop, or None.
        reason: that in words, or None.
    """

    reference: float | None = None
    best_seen: float | None = None
    best_step: int | None = None
    best_epoch: int | None = None
    wait: int = 0
    checks: int = 0
    nonfinite_checks: int = 0
    stopped_by: Cause | None = None
    reason: str | None = None

    def check(
        self, value: float, mode: str, min_delta: float, step: int, epoch: int
    ) -> bool:
        """Count one fresh value; return whether it is the best one seen."""
        self.checks += 1
        if not math.isfinite(value):
            self.nonfinite_checks += 1
            self.wait += 1
            return False
        if self.reference is None or improved(value, self.reference, mode, min_delta):
            self.reference = value
            self.wait = 0
        else:
            self.wait += 1
        is_best = self.best_seen is None or improved(value, self.best_seen, mode, 0.0)
        if is_best:
            self.best_seen, self.best_step, self.best_epoch = value, step, epoch
        return is_best
