"""What weights of batches are divided by before their gradients are added up."""

from __future__ import annotations

import math


class Divisor:
    """The power of two that weights of batches are divided by, the same everywhere."""

    def __init__(self) -> None:
        self.value: float | None = None

    def follow(self, weight: float) -> None:
        """Take the power of two next to ``weight``, unless there is none."""
        if weight > 0.0 and math.isfinite(weight):
            self.value = 2.0 ** round(math.log2(weight))
