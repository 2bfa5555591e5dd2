"""What is measured, and what one batch told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.hardware.strategy import Strategy
from training.weighing.counts import Contents, Counts
from training.weighing.fit import Fit

#: (model, batch, weight counted on the host) -> (0-d mean loss, weight, all else).
ComputeLoss = Callable[[nn.Module, Any, float], tuple[Tensor, float, Any]]
#: Returns the context that a forward pass runs in.
Precision = Callable[[], AbstractContextManager[object]]


@dataclass(slots=True)
class Subject:
    """What is measured, in all looks of a run.

    Attributes:
        forward: ``(model, batch, weight) -> (0-d mean loss, weight, parts)``.
        counts: counts units.
        loss_fn: a module with buffers, perhaps.
        has_own_loss: whether the model computes its loss itself.
        by_losses: compare losses, as an evaluation without gradients does.
        beside: modules, optimizers and generators that computing the loss may move.
        autocast: what the run computes in, for models that run in nothing else.
        strategy: by which processes the run is computed; all of them look.
        model: the bare module, on ``device``, once a run has set it up.
        device: where batches go.
        loader: torch's own, to collate again with, or None.
        batches_a_window: of a full one, of all processes; with 1 any weight trains
            alike.
    """

    forward: ComputeLoss
    counts: Counts
    loss_fn: Any
    has_own_loss: bool
    by_losses: bool
    beside: Sequence[Any]
    autocast: Precision | None
    strategy: Strategy
    model: nn.Module = field(default_factory=nn.Module)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loader: Any = None
    batches_a_window: int = 1

    @property
    def has_step(self) -> bool:
        """Whether a ``step_fn`` computes the loss."""
        return not self.has_own_loss and self.loss_fn is None


@dataclass(frozen=True, slots=True)
class Aim:
    """What one look is to tell.

    Attributes:
        units: units that earlier batches left; None: all.
        num_cuts: cuts to make.
        has_parted: whether those units weigh this batch unlike the ones before.
        is_known: whether the unit is, and one cut is to confirm it.
        in_full: whether to compute in full precision where the model can.
    """

    units: list[str] | None
    num_cuts: int
    has_parted: bool
    is_known: bool
    in_full: bool = True


@dataclass(slots=True)
class Look:
    """What one batch told.

    Attributes:
        num_cuts: cuts that told something.
        units: units that explain all of them, preferred ones first.
        fit: the cut that told most: the refuting one, or the first.
        shares: of each unit in that cut.
        sizes: of its parts.
        said: the weight that step_fn returned for the batch, or None.
        reasons: why a way told nothing, one a way.
        is_final: whether another batch could tell no more.
        is_half: computed in half precision.
        may_be_random: something was drawn, or the mode is that of training, since the
            loss is another one in eval mode: what is no module may draw there.
        by_losses: losses were compared, since gradients could not be had.
        has_no_room: the device has too little memory for the batch.
        is_empty: it has no gradient, or one that is not finite.
    """

    num_cuts: int = 0
    units: list[str] = field(default_factory=list)
    fit: Fit | None = None
    shares: dict[str, tuple[float, ...]] = field(default_factory=dict)
    sizes: Sequence[int] = ()
    said: float | None = None
    reasons: list[str] = field(default_factory=list)
    is_final: bool = False
    is_half: bool = False
    may_be_random: bool = False
    by_losses: bool = False
    has_no_room: bool = False
    is_empty: bool = False

    @property
    def is_none(self) -> bool:
        """Whether no unit explains it, or rows depend on one another."""
        return self.num_cuts > 0 and not self.units

    @property
    def belies_said(self) -> bool:
        """Whether ``step_fn`` said weights that are not those of its gradients."""
        return "said" in self.shares and "said" not in self.units

    def is_over_nothing(self, units: Collection[str], batch: Contents) -> bool:
        """Whether ``batch`` is a mean over nothing, which counts 0 in its window.

        One that holds some of each of ``units``, which it may be a mean over, may have
        no gradient for another reason.
        """
        return self.is_empty and len(batch.present(units)) < len(units)
