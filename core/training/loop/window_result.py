"""What a window has come to, for the loop and for logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from training.hardware.readback import LateFlag, Readback

#: Name of a part -> sum of mean times weight, and sum of those weights.
PartSums = Mapping[str, tuple[Tensor | float, float]]


@dataclass(slots=True)
class WindowResult:
    """What became of a window.

    Attributes:
        applied: whether the optimizer changed the weights.
        loss_sum: sum of mean loss times weight over the batches that counted: a float
            where each loss is read, else 0-d float64 on the device.
        weight: sum of those weights.
        part_sums: as ``loss_sum`` and ``weight``, of each part of the loss.
        grad_norm: 0-d, before clipping; None when not clipping or not applied.
        nonfinite: whether a loss or gradient was NaN or infinite and no scale mends it.
        verdict: APPLIED, SKIPPED or NONFINITE, where only the device knows it yet;
            None: the other attributes are final.
    """

    applied: bool | LateFlag
    loss_sum: Tensor | float
    weight: float
    part_sums: PartSums
    grad_norm: Tensor | None = None
    nonfinite: bool = False
    verdict: Readback | None = None

    @property
    def loss(self) -> Tensor | float:
        """The window's mean loss; NaN when no batch counted."""
        return self.loss_sum / self.weight if self.weight else math.nan

    @property
    def parts(self) -> dict[str, Tensor | float]:
        """The window's mean of each part, over the batches that had it."""
        return {name: total / n for name, (total, n) in self.part_sums.items()}


def add_part_sums(some: PartSums, others: PartSums) -> PartSums:
    """Return the sums of both by name; they stay as they are: who kept them goes back.

    On CUDA one kernel for each part, and no read.
    """
    sums = dict(some)
    for name, (total, weight) in others.items():
        before, counted = sums.get(name, (0.0, 0.0))
        sums[name] = before + total, counted + weight
    return sums


def added(total: Tensor | float, mean: Tensor | float, weight: float) -> Tensor | float:
    """Return ``total + mean * weight``, in double: an epoch may have many batches."""
    if not isinstance(mean, Tensor):
        return total + mean * weight
    if not isinstance(total, Tensor):
        total = mean.new_full((), total, dtype=torch.float64)
    return torch.add(total, mean, alpha=weight)  # one kernel
