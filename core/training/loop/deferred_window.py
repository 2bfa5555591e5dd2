"""Windows of a device where a read makes the host wait: for one a step, or for none.

``NotedWindow`` lets the device note what is bad, and reads that before it steps; once
more where a plugin wants to see gradients first, and as often as its scaler under fp16.

``UnreadWindow`` does not wait. A bad loss or gradient must not reach the weights in the
attempt it occurs in, so the device sees to that by itself: a bad loss turns its own
gradients into NaN, one pass over the gradients notes whether all are finite, and the
optimizer's own kernel leaves the weights alone if not. The note stays, so later
attempts change nothing either, until the host has read it and ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from training.hardware.readback import LateFlag, Readback
from training.loop.verdicts import NONFINITE
from training.loop.window import LOWEST_SCALE, Window
from training.loop.window_result import WindowResult


class NotedWindow(Window):
    """As ``Window``; a loss that is not finite is refused when its window is stepped.

    The result of ``step`` has the sum of losses on the device.
    """

    def backward(self, batch: Any, weight: float) -> Tensor:
        """Add one batch's gradients; return its mean loss, which nobody has read."""
        if self.num_batches == 0:
            self._begin()
        loss, weight, self.parts = self.forward(self.model, batch, weight)
        self.num_batches += 1
        if weight > 0.0:  # a mean over nothing is NaN: it has no gradient to give
            self._differentiate(loss, self._share_of(loss, weight))
            self._add(loss.detach(), weight)
        return loss

    def _differentiate(self, loss: Tensor, share: Tensor) -> None:
        """Add the gradients of ``share``, which is that of ``loss`` in its window."""
        share.backward()  # type: ignore[no-untyped-call]

    def _plain_step(self, before_step: Callable[[], None] | None) -> WindowResult:
        check, norm, finite = self._check, None, True
        assert isinstance(self._loss_sum, Tensor)
        check.note(self._loss_sum)
        correction, clips = self._correction(), self.max_grad_norm is not None
        # The norm to clip by tells, too, where nobody wants to see gradients before.
        if before_step is not None or correction != 1.0 or not clips:
            check.scan(correction)
        if before_step is not None and (finite := check.read()):
            before_step()
            if not clips:
                check.scan()  # a plugin may have spoilt them
        if finite and self.max_grad_norm is not None:
            norm = check.clip(self.max_grad_norm)
            check.note(norm)  # that of finite gradients may be infinite
        if not (finite and check.read()):
            self._refuse("a loss or gradient is NaN or infinite")
            return self._result(applied=False, nonfinite=True)
        self.optimizer.step()
        return self._result(applied=True, grad_norm=norm)

    def _scaled_step(
        self, scaler: torch.amp.GradScaler, before_step: Callable[[], None] | None
    ) -> WindowResult:
        # No lower scale mends a bad loss. This waits, as get_scale() does, too.
        if not math.isfinite(float(self._loss_sum)):
            self._refuse("the loss is NaN or infinite")
            return self._result(applied=False, nonfinite=True)
        return super()._scaled_step(scaler, before_step)


class UnreadWindow(NotedWindow):
    """As ``NotedWindow`` with the policy ``"stop"``, for what ``make_window`` lets in.

    The result of ``step`` carries a ``verdict``; whoever reads NONFINITE there ends
    the run. Under fp16 a plugin that listens before the step makes the host wait, once
    a window: what it spoils must be told from what overflowed.
    """

    #: 1.0, 0-d on the device; NaN for ever once a loss was not finite.
    _poison: Tensor | None = None

    def _look_at_groups(self) -> None:
        before = self._check.found if self._poison is not None else None
        super()._look_at_groups()
        if before is None:
            self._poison = torch.ones((), device=self._parameters[0].device)
            self._zero = torch.zeros_like(self._poison)
        else:  # what was found before a group joined stays found
            self._check.found.copy_(before)

    def _differentiate(self, loss: Tensor, share: Tensor) -> None:
        assert self._poison is not None
        # Adds 0, or NaN: one kernel.
        self._poison.addcmul_(loss.detach(), self._zero)
        # As the gradient that comes in: NaN spreads to every other by itself.
        share.backward(self._poison.to(share.dtype))  # type: ignore[no-untyped-call]

    def _plain_step(self, before_step: Callable[[], None] | None) -> WindowResult:
        norm = self._guarded_step(self._correction(), before_step)
        # 1.0 where it has met a bad value, which is NONFINITE.
        return self._late_result(norm, self._check.found)

    def _guarded_step(
        self, factor: float | Tensor, before_step: Callable[[], None] | None
    ) -> Tensor | None:
        """Step unless the device has met a bad value; return the norm, if clipping."""
        check, norm = self._check, None
        clips = self.max_grad_norm is not None
        is_right = not isinstance(factor, Tensor) and factor == 1.0
        # A pass over all gradients, which the norm to clip by spares: it tells, too.
        if before_step is not None or not (clips and is_right):
            # Corrects on the way; what is found stays on the device.
            check.scan(factor)
        if before_step is not None:
            before_step()
            if not clips:
                check.scan()
        if self.max_grad_norm is not None:
            norm = check.clip(self.max_grad_norm)
            # Infinite, too, where the squares of finite gradients overflow.
            check.note(norm)
        optimizer: Any = self.optimizer
        # The protocol by which GradScaler tells an optimizer's kernel to do nothing.
        optimizer.grad_scale, optimizer.found_inf = None, check.found
        try:
            optimizer.step()
        finally:
            # Whoever else steps it shall meet an ordinary optimizer.
            del optimizer.grad_scale, optimizer.found_inf
        return norm

    def _late_result(self, norm: Tensor | None, code: Tensor) -> WindowResult:
        result = self._result(applied=True, grad_norm=norm)
        result.verdict = Readback(code)
        return result

    def _scaled_step(
        self, scaler: torch.amp.GradScaler, before_step: Callable[[], None] | None
    ) -> WindowResult:
        if before_step is not None:
            return super()._scaled_step(scaler, before_step)
        norm, correction = None, self._correction()
        # Else the scaler leaves it to the fused kernel to unscale as it steps.
        if correction != 1.0 or self.max_grad_norm:
            scaler.unscale_(self.optimizer)
            if correction != 1.0:
                grads = [p.grad for p in self._parameters if p.grad is not None]
                torch._foreach_mul_(grads, correction)
            if self.max_grad_norm is not None:
                norm = self._check.clip(self.max_grad_norm)
        scale = scaler._scale  # get_scale() would wait for it
        assert scale is not None
        assert self._poison is not None
        # A copy, on the device: update() writes the scale in place.
        before = scale.clone()
        scaler.step(self.optimizer)
        scaler.update()
        skipped = (scale < before).float()
        # SKIPPED, or NONFINITE where the lowest scale overflowed, too.
        code = skipped + skipped * (scale >= LOWEST_SCALE)
        # A bad loss is no overflow: no lower scale mends it.
        code = torch.where(self._poison.isnan(), float(NONFINITE), code)
        # At 0 no update would mean anything any more.
        scale.clamp_(min=LOWEST_SCALE)
        result = self._late_result(norm, code)
        assert result.verdict is not None
        # Waits for the device only if somebody asks.
        result.applied = LateFlag(result.verdict)
        return result
