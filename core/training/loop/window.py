"""One optimizer attempt: forward, backward, accumulate, clip, step.

The gradient of a window is ``sum_i n_i grad(m_i) / sum_i n_i`` for batches with mean
loss ``m_i`` over ``n_i`` items: that of one large batch, however it is split. Batches
stream through: each is scaled by ``n_i / c`` with ``c`` guessed from the first batch,
and the gradients are corrected by ``c / sum n_i`` where the guess was wrong.

Each loss is read, which on a CPU costs nothing (``single_window`` is a short way for
windows of one batch there). Where a read makes the host wait, the windows of
``deferred_window`` read once a step, or not at all.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.errors import NonFiniteError
from training.hardware.optimizer_kernels import prepare_momentum
from training.loop.gradients import GradientCheck
from training.loop.window_result import WindowResult, added
from training.modules.buffers import check_buffers, nonfinite_buffers

if TYPE_CHECKING:
    from training.loop.forward import Forward, Parts
    from training.loop.precision import Precision

NONFINITE_POLICIES = ("stop", "skip")
#: Below it an overflow is no matter of scaling any more: the gradients are bad.
LOWEST_SCALE = 1.0


class Window:
    """Accumulates batches and then makes one optimizer attempt, again and again.

    Args:
        model: the module to call.
        optimizer: steps the model's parameters.
        forward: ``(model, batch, weight) -> (0-d mean loss, weight, parts)``.
        precision: autocast and loss scaler.
        accumulation: batches of a full window.
        max_grad_norm: 2-norm to clip to; None or 0 never clips.
        nonfinite: ``"stop"`` raises, ``"skip"`` drops the window, in either case
            before the weights are touched.
    """

    #: Whether autocast casts a weight once a forward pass, however often it is used.
    keeps_casts = True
    #: Whether losses are sums: gradients are added up then, and divided by nothing.
    sums_losses = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        forward: Forward,
        precision: Precision,
        accumulation: int = 1,
        max_grad_norm: float | None = None,
        nonfinite: str = "stop",
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        #: In the run's autocast: to be wrapped, not to be replaced.
        self.forward = precision.around(forward, self.keeps_casts)
        self.precision = precision
        self.accumulation = accumulation
        self.max_grad_norm = max_grad_norm or None
        self.nonfinite = nonfinite
        self.num_batches = 0
        #: What the forward pass of the last batch returned beside its loss.
        self.parts: Parts = {}
        # What is meant to be infinite; only "skip" goes on after anything else was.
        self._infinite_buffers = nonfinite_buffers(model) if nonfinite == "skip" else []
        self._look_at_groups()
        self.clear()

    def _look_at_groups(self) -> None:
        groups = self.optimizer.param_groups
        self._parameters = [p for group in groups for p in group["params"]]
        self._check = GradientCheck(self._parameters)

    def clear(self) -> None:
        """Forget the window in hand and its gradients."""
        self._drop_gradients()
        self.num_batches = 0
        self._loss_sum: Tensor | float = 0.0
        self._weight_sum = 0.0
        self._part_sums: dict[str, tuple[Tensor | float, float]] = {}
        self._expected_weight = 0.0
        self._bad_loss = False

    def backward(self, batch: Any, weight: float) -> Tensor:
        """Add one batch's gradients; return its mean loss, 0-d, on the device.

        It may still have its graph: detach it to keep it.

        Raises:
            NonFiniteError: the loss is not finite and the policy is ``"stop"``.
        """
        # What changes here changes in ``SingleWindow``, whose copy saves the calls.
        if self.num_batches == 0:
            self._begin()
        loss, weight, self.parts = self.forward(self.model, batch, weight)
        self.num_batches += 1
        if weight <= 0.0:  # a mean over nothing is NaN: it has no gradient to give
            return loss
        value = loss.item()
        if not math.isfinite(value):
            self._refuse(f"the loss is {value}", batch)
            self._bad_loss = True
            return loss
        self._share_of(loss, weight).backward()  # type: ignore[no-untyped-call]
        self._add(value, weight)
        return loss

    def step(self, before_step: Callable[[], None] | None = None) -> WindowResult:
        """Try to update the weights once, and start the next window.

        Args:
            before_step: called when gradients are complete and unscaled, before
                clipping; not called where they are not finite.
        Raises:
            NonFiniteError: a gradient is not finite and the policy is ``"stop"``.
        """
        try:
            if self._bad_loss:
                return self._result(applied=False, nonfinite=True)
            if self._weight_sum == 0.0:
                return self._result(applied=False)
            if (scaler := self.precision.scaler) and self._check.has_any():
                return self._scaled_step(scaler, before_step)
            return self._plain_step(before_step)
        finally:
            self.clear()

    def _begin(self) -> None:
        """Take in which parameters the optimizer has now; plugins may change that."""
        now: list[Any] = []
        for group in self.optimizer.param_groups:
            now += group["params"]
        own = self._parameters
        # In no function of Python: 30 ns a parameter, of which a step takes 1 us.
        if len(now) != len(own) or not all(map(operator.is_, now, own)):
            prepare_momentum(self.optimizer)
            self._look_at_groups()
            self.clear()

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            # Not zeros: the first backward then writes where it would add.
            parameter.grad = None

    def _share_of(self, loss: Tensor, weight: float) -> Tensor:
        """Return what of a mean loss goes backward: n / c of it, as fp16 scales it."""
        if (divisor := self._divisor(weight)) != 1.0:
            loss = loss / divisor
        scaler = self.precision.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _divisor(self, weight: float) -> float:
        """Return c / n of a batch; the first batch of a window fixes c."""
        if self.sums_losses:
            return 1.0
        if self._expected_weight == 0.0:
            self._expected_weight = weight * self.accumulation
        return self._expected_weight / weight

    def _add(self, mean: Tensor | float, weight: float) -> None:
        """Count a batch whose gradients are in."""
        share = 1.0 if self.sums_losses else weight
        if isinstance(mean, float):  # at hand: this is the path of a CPU
            self._loss_sum += mean * share
        else:
            self._loss_sum = added(self._loss_sum, mean, share)
        self._weight_sum += weight
        if self.parts:
            self._add_parts(weight)

    def _add_parts(self, weight: float) -> None:
        for name, part in self.parts.items():
            if isinstance(part, Tensor) and part.device.type == "cpu":
                part = part.item()
            total, count = self._part_sums.get(name, (0.0, 0.0))
            self._part_sums[name] = added(total, part, weight), count + weight

    def _plain_step(self, before_step: Callable[[], None] | None) -> WindowResult:
        check, norm, finite = self._check, None, True
        correction, clips = self._correction(), self.max_grad_norm is not None
        # The norm to clip by tells, too, where nobody wants to see gradients before.
        reads = before_step is not None or not clips
        if reads or correction != 1.0:
            check.scan(correction)
        if reads:
            finite = check.read()
        if finite and before_step is not None:
            before_step()
            finite = clips or check.finite()  # a plugin may have spoilt them
        if finite and self.max_grad_norm is not None:
            norm = check.clip(self.max_grad_norm)
            finite = math.isfinite(norm)  # that of finite gradients may be infinite
        if not finite:
            check.read()  # what was found is of this window alone
            self._refuse("a gradient is NaN or infinite")
            return self._result(applied=False, nonfinite=True)
        self.optimizer.step()
        return self._result(applied=True, grad_norm=norm)

    def _scaled_step(
        self, scaler: torch.amp.GradScaler, before_step: Callable[[], None] | None
    ) -> WindowResult:
        norm, correction = None, self._correction()
        if correction != 1.0 or before_step is not None or self.max_grad_norm:
            scaler.unscale_(self.optimizer)
            finite = self._check.finite(correction)
            if finite and before_step is not None:
                before_step()
                if not self._check.finite():  # the scaler has looked before
                    scaler.update()
                    self._refuse("a plugin made a gradient NaN or infinite")
                    return self._result(applied=False, nonfinite=True)
            if self.max_grad_norm is not None:
                norm = self._check.clip(self.max_grad_norm)
        before = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        # Only the scale tells: a fused optimizer counts what it skips, too. A read.
        scale = scaler.get_scale()
        applied = scale >= before
        if not applied and scale < LOWEST_SCALE:
            scaler.update(LOWEST_SCALE)  # at 0 nothing would ever be learnt again
            self._refuse(
                f"a gradient is NaN or infinite even at a loss scale of {before:g}"
            )
            return self._result(applied=False, nonfinite=True)
        return self._result(applied, norm if applied else None)

    def _correction(self) -> float:
        """Return c / sum n_i: 1.0 when every batch weighed what the first one did."""
        return 1.0 if self.sums_losses else self._expected_weight / self._weight_sum

    def _result(
        self, applied: bool, grad_norm: Tensor | None = None, nonfinite: bool = False
    ) -> WindowResult:
        sums = self._loss_sum, self._weight_sum, self._part_sums
        return WindowResult(applied, *sums, grad_norm, nonfinite)

    def _refuse(self, what: str, batch: Any = None) -> None:
        if self.nonfinite == "stop":
            from training.feed.bad_values import refusal  # in a run that fails

            raise NonFiniteError(refusal(what, batch))
        check_buffers(self.model, self._infinite_buffers, what)
