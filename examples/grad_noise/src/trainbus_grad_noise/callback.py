"""Measure norm and noise of the gradients, without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from training import Callback, ConfigError

if TYPE_CHECKING:
    from training import Trainer


class GradientNoiseCallback(Callback):
    """Deliver ``grad_norm`` and ``grad_noise`` with every epoch's metrics.

    ``grad_norm`` is the root mean square 2-norm of the gradients of the epoch's steps,
    of what the optimizer steps, before clipping. ``grad_noise`` compares how much they
    differ from one another with what they share: tr(S) / |G|^2, where the mean of n
    gradients g_i estimates G and S is their covariance (the simple noise scale of
    McCandlish et al. 2018, arXiv:1812.06162, in units of steps). Around 1 or above, a
    larger batch would make better steps; far below 1, it would only cost more. Weights
    move during an epoch, which counts as noise: read it as an upper bound.

    Steps whose gradients are not finite are left out. NaN says that there were fewer
    than two steps, or no common direction.
    """

    name = "grad_noise"
    hook_api = ">=1.0,<2"
    produces = ("grad_norm", "grad_noise")
    reads_validation = False
    reads_device: ClassVar = {
        "on_before_step": "under fp16 the trainer reads before it shows gradients"
    }

    def __init__(self) -> None:
        self._sum: dict[str, Tensor] = {}  # of the gradients, by parameter
        self._squares: Tensor | None = None  # sum of squared norms, 0-d, on the device
        self._count: Tensor | None = None  # gradients in the sums, 0-d, on the device

    def on_setup(self, trainer: Trainer) -> None:
        """Forget an earlier run.

        Raises:
            ConfigError: this process would see parts of the gradients, as under fsdp2.
        """
        if trainer.strategy.parts:
            raise ConfigError(
                "grad_noise adds up whole gradients, and each process has a part of "
                "them; use engine ddp, or leave grad_noise out"
            )
        self._reset(trainer.device)

    def metric_names(self) -> list[str]:
        """Return what ``evaluate`` delivers."""
        return ["grad_norm", "grad_noise"]

    @torch.no_grad()
    def on_before_step(self, trainer: Trainer) -> None:
        """Add this step's gradients to the sums; nothing is read."""
        assert self._squares is not None
        assert self._count is not None
        # Others are never cleared: theirs are of all steps so far.
        stepped = {
            p for group in trainer.optimizer.param_groups for p in group["params"]
        }
        gradients = {
            name: weight.grad.float()
            for name, weight in trainer.model.named_parameters()
            if weight.grad is not None and weight in stepped
        }
        square = torch.stack([g.square().sum() for g in gradients.values()]).sum()
        is_finite = square.isfinite()
        self._squares += torch.where(is_finite, square, 0.0)
        self._count += is_finite
        for name, gradient in gradients.items():
            finite = torch.where(is_finite, gradient, 0.0)
            if name in self._sum:
                self._sum[name] += finite
            else:  # the first of the epoch, or of a layer that was thawed in it
                self._sum[name] = finite

    def evaluate(self, reason: str) -> dict[str, float] | None:
        """Return the epoch's two numbers; waits for the device."""
        if not reason.startswith("epoch_end"):  # others' reasons stand behind it
            return None
        assert self._squares is not None
        assert self._count is not None
        count, squares = float(self._count), float(self._squares)
        shared = sum(float(total.square().sum()) for total in self._sum.values())
        if count < 2:
            return {"grad_norm": squares**0.5, "grad_noise": float("nan")}
        mean_square = squares / count
        noise = (mean_square - shared / count**2) * count / (count - 1)  # tr(S)
        signal = mean_square - noise  # |G|^2
        return {
            "grad_norm": mean_square**0.5,
            "grad_noise": noise / signal if signal > 0 else float("nan"),
        }

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Begin the next; not in ``evaluate``, which may be left and come again."""
        if not trainer.is_extra_evaluation:
            self._reset(trainer.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch at hand."""
        if self._count is None:
            return {}
        return {"sum": self._sum, "squares": self._squares, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch."""
        assert self._squares is not None
        assert self._count is not None
        self._squares.copy_(state["squares"])
        self._count.copy_(state["count"])
        device = self._squares.device
        self._sum = {
            name: total.to(device, copy=True) for name, total in state["sum"].items()
        }

    def _reset(self, device: torch.device) -> None:
        self._squares = torch.zeros((), device=device)
        self._count = torch.zeros((), device=device)
        self._sum = {}
