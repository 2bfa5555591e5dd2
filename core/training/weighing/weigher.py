"""What a batch weighs: said, or by the unit that a search has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.errors import DataError
from training.feed.structure import attribute_of
from training.hardware.strategy import Strategy
from training.recipes.weight import checked_weight, warn_of_overruled
from training.weighing.counts import Contents, Counts, LabelUse
from training.weighing.known_units import KnownUnits, Phase
from training.weighing.search import Search
from training.weighing.subject import ComputeLoss, Look, Precision, Subject
from training.weighing.units import check_loss_per, is_known, naming_loss_per
from training.weighing.usual_batch import Weigh, usual_weight

#: The name of a unit, or a function batch -> number of items.
LossPer = str | Callable[[Any], float]
_SAID = "a batch has the loss_weight"


class Weigher:
    """Weighs each batch; measures first batches where nobody says a weight.

    ``batch.loss_weight`` comes first, then ``loss_per``, then what torch defines, then
    what is measured. The loop calls ``weigh``, which learns to count usual batches at
    once; who has a batch by itself calls the weigher; and ``evaluated`` is for batches
    that are not trained on, and decides nothing.

    Args:
        loss_per: the name of a unit, a function batch -> float, or None: measure.
        forward: ``(model, batch, weight) -> (0-d mean loss, weight, parts)``.
        loss_fn: passed beside the model.
        has_own_loss: whether the model computes its loss itself.
        by_losses: measure without gradients, as an evaluation does.
        beside: modules, optimizers and generators that computing the loss may move.
        autocast: what the run computes in.
        strategy: by which processes each batch is computed.
    Attributes:
        counts: counts units.
        has_step: whether a ``step_fn`` computes the loss.
        weigh: weighs the batch whose turn it is: ``ask``, or what leaves to that all
            but usual batches, as soon as all there is to do is count.
    Raises:
        ConfigError: no unit has this name.
    """

    _search_kind: type[Search] = Search

    def __init__(
        self,
        loss_per: LossPer | None,
        forward: ComputeLoss,
        loss_fn: Any = None,
        has_own_loss: bool = True,
        by_losses: bool = False,
        *,
        beside: Sequence[Any] = (),
        autocast: Precision | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        check_loss_per(loss_per)
        self._loss_per, self._said = loss_per, said_by(loss_per)
        self.counts = Counts(loss_fn)
        how = has_own_loss, by_losses, beside, autocast, strategy or Strategy()
        self._subject = Subject(forward, self.counts, loss_fn, *how)
        self.has_step = self._subject.has_step
        self._window: Any = None
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        said: Any = self._loss_per
        phase = Phase.SOUGHT if said is None else Phase.SETTLED
        self._begin(KnownUnits(None if callable(said) else said, phase=phase))

    def _begin(self, known: KnownUnits, allows_change: bool = False) -> None:
        self._search = self._search_kind(self._subject, known, allows_change)
        self.weigh: Weigh = self.ask

    def prepare(
        self,
        model: nn.Module,
        device: torch.device,
        loader: Any = None,
        batches_a_window: int = 1,
        window: Any = None,
    ) -> None:
        """Take what a run has set up.

        Args:
            model: the bare module.
            device: where it is.
            loader: torch's own over a map-style data set, to collate again with.
            batches_a_window: of a full one; with 1 any weight trains alike.
            window: is told if the loss is a sum.
        """
        subject, known, self._window = self._subject, self._search.known, window
        subject.model, subject.device, subject.loader = model, device, loader
        # Several parts of one batch make a window, too.
        subject.batches_a_window = batches_a_window * subject.strategy.size
        is_unmeasured = known.is_defined or (known.is_settled and known.unit is None)
        if subject.batches_a_window > 1 and is_unmeasured:
            self.reset()  # with one batch a window nothing had to be measured
        self.weigh = self.ask
        self._tell_window()

    @property
    def is_sum(self) -> bool:
        """Whether the loss is a sum over its batch."""
        return self._search.known.unit == "sum"

    @property
    def label_use(self) -> LabelUse:
        """How the loss takes labels, as far as that is known."""
        return self.counts.label_use(self._search.known.is_shifted)

    def __copy__(self) -> Weigher:
        """Return one that knows as much, and learns by itself."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        other._search = copy(self._search)
        other._search.known = replace(self._search.known)
        other.weigh = other.ask  # else what the original counts by
        return other

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        settings = self._search.known.settings()
        if callable(given := self._loss_per):
            settings["unit"] = getattr(given, "__qualname__", type(given).__name__)
        return settings

    def take_over(self, saved: Mapping[str, Any] | None, allows_change: bool) -> None:
        """Go on with the unit of a checkpoint, unless a person says another.

        A unit that is found to be another one is refused unless ``allows_change``.
        """
        self.reset()
        if saved and self._loss_per is None and is_known(saved["unit"], allows_change):
            self._begin(KnownUnits.of(saved), allows_change)

    def ask(self, batch: Any, source: Any) -> float:
        """Return what ``batch`` counts, as a call does; learn what is usual.

        Args:
            batch: on the host.
            source: what it came from: ``issued`` are its indices, or None.
        """
        before = self._search.last_look
        weight = self._said(batch)
        if weight is None:
            weight = self._search.weight(self._contents(batch, source))
        if self.weigh == self.ask or self._search.last_look is not before:
            self.weigh = self._usual() or self.ask
            self._tell_window()
        return weight

    def _contents(self, batch: Any, source: Any) -> Contents:
        return Contents(self.counts, batch, issued=source.issued)

    def _usual(self) -> Weigh | None:
        """Return what counts usual batches at once, if all there is to do is count."""
        known = self._search.known
        looks_again = known.later.number is not None or known.undecided
        is_first = len(known.possible) < 2 or known.unit == next(iter(known.possible))
        may_count = known.is_settled or (known.has_waited and self._search.may_wait)
        if callable(self._loss_per) or looks_again or not (is_first and may_count):
            return None
        return usual_weight(self.counts, known, self.ask)

    def __call__(
        self, batch: Any, issued: Any = None, samples: int | None = None
    ) -> float:
        """Return what ``batch``, on the host, counts in its window.

        Args:
            batch: may say it itself, as ``loss_weight``.
            issued: the indices of its samples, where the run's sampler issued them.
            samples: in it, where that is known without them.
        Raises:
            ConfigError: a window has several, nothing being known; ``loss_per`` is off.
            DataError: the batch does not tell how many there are.
        """
        if (said := self._said(batch)) is not None:
            return said
        return self._search.weight(Contents(self.counts, batch, samples, issued))

    def evaluated(self, batch: Any, samples: int | None = None) -> float:
        """Return what a batch that is not trained on counts; it decides nothing.

        Args:
            batch: on the host.
            samples: in it, where that is known.
        """
        if (said := self._said(batch)) is not None:
            return said
        return self._search.evaluated(Contents(self.counts, batch, samples))

    def look(self, batch: Contents) -> Look:
        """Return what ``batch`` tells, whatever anybody says."""
        return self._search.look(batch)

    def _tell_window(self) -> None:
        if self._window is not None:
            self._window.sums_losses = self.is_sum


def said_weight(batch: Any) -> float | None:
    """Return ``batch.loss_weight``: the items that its mean loss is a mean over.

    Raises:
        DataError: it is negative, infinite or no number.
    """
    given = attribute_of(batch, "loss_weight")
    if given is None:
        return None
    return checked_weight(given, _SAID, DataError)


def said_by(loss_per: Any) -> Callable[[Any], float | None]:
    """Return what tells the weight that is said for a batch, None where nobody does.

    The batch itself, or else a function: it warns, once, of a ``loss_per`` that does
    nothing since the batch says it.
    """
    function = naming_loss_per(loss_per) if callable(loss_per) else None
    has_warned = loss_per is None

    def said(batch: Any) -> float | None:
        nonlocal has_warned
        weight = said_weight(batch)
        if weight is None:
            return None if function is None else function(batch)
        if not has_warned:
            has_warned = True
            way_out = "make batches without a loss_weight"
            warn_of_overruled(loss_per, _SAID, weight, way_out)
        return weight

    return said
