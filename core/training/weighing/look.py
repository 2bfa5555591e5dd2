"""What is measured, and what one batch told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from training.loop.forward import Forward
from training.weighing.candidates import Counts
from training.weighing.fit import Fit


@dataclass(slots=True)
class Subject:
    """What is measured.

    Attributes:
        model: the bare module, on ``device``.
        forward: computes (mean loss, weight) of a batch.
        counts: counts units.
        device: where batches go.
        loader: torch's own, to collate again with, or None.
        loss_fn: a module with buffers, perhaps.
        has_own_loss: whether the model computes its loss itself.
        by_losses: compare losses, where there are no gradients.
        beside: further modules that computing the loss may move.
    """

    model: nn.Module
    forward: Forward
    counts: Counts
    device: torch.device
    loader: Any = None
    loss_fn: Any = None
    has_own_loss: bool = True
    by_losses: bool = False
    beside: Sequence[nn.Module] = ()


@dataclass(slots=True)
class Look:
    """What one batch told.

    Attributes:
        turns: cuts that told something.
        live: units that explain all of them, preferred ones first.
        fit: the cut that told most: the refuting one, or the first.
        shares: of each unit in that cut.
        sizes: of its parts.
        is_none: no unit explains it, or rows depend on one another.
        said: the weight that step_fn returned for the batch, or None.
        reasons: why a way told nothing, one a way.
        is_final: whether another batch could tell no more.
        is_half: computed in half precision.
    """

    turns: int = 0
    live: list[str] = field(default_factory=list)
    fit: Fit | None = None
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    sizes: tuple[int, int] = (0, 0)
    is_none: bool = False
    said: float | None = None
    reasons: list[str] = field(default_factory=list)
    is_final: bool = False
    is_half: bool = False
