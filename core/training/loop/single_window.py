"""The window of one batch, on a CPU: a step in as few calls as it takes.

What a call costs there is not the call: between two steps of a small model its code,
and what it looks at, have left every cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from training.loop.window import Window
from training.loop.window_result import WindowResult


class SingleWindow(Window):
    """As ``Window``, to the bit; a window of one batch goes a short way.

    Its mean loss goes backward as it is, whatever it weighs, and no gradient is
    corrected. A second batch, a loss scaler, clipping, and a look at gradients before
    the step go the way of any window: what changes there changes here, too.
    """

    def backward(self, batch: Any, weight: float) -> Tensor:
        """Add one batch's gradients; return its mean loss, as any window does.

        Raises:
            NonFiniteError: the loss is not finite and the policy is ``"stop"``.
        """
        if self.num_batches or self.precision.scaler is not None:
            return super().backward(batch, weight)
        self._begin()
        loss, weight, self.parts = self.forward(self.model, batch, weight)
        self.num_batches = 1
        if weight <= 0.0:  # a mean over nothing is NaN: it has no gradient to give
            return loss
        value = loss.item()
        if not math.isfinite(value):
            self._refuse(f"the loss is {value}", batch)
            self._bad_loss = True
            return loss
        loss.backward()  # type: ignore[no-untyped-call]
        self._loss_sum += value if self.sums_losses else value * weight
        self._weight_sum += weight
        self._expected_weight = weight
        if self.parts:
            self._add_parts(weight)
        return loss

    def step(self, before_step: Callable[[], None] | None = None) -> WindowResult:
        """Try to update the weights once, and start the next window, as any does.

        Raises:
            NonFiniteError: a gradient is not finite and the policy is ``"stop"``.
        """
        looks = before_step is not None or self.max_grad_norm is not None
        is_scaled = self.precision.scaler is not None
        if looks or is_scaled or self.num_batches != 1 or not self._weight_sum:
            return super().step(before_step)
        check = self._check
        try:
            check.scan()
            if not check.read():
                return super().step()  # finds it once more, and says so
            self.optimizer.step()
            sums = self._loss_sum, self._weight_sum, self._part_sums
            return WindowResult(True, *sums)
        finally:
            self.clear()
