"""What a batch weighs: said, or by the unit that the first batches told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from training.errors import CheckpointError, ConfigError
from training.hardware.strategy import Strategy
from training.weighing import sentences
from training.weighing.candidates import Counts, LabelUse, overruling
from training.weighing.later_looks import LaterLooks, is_belied
from training.weighing.told import Told
from training.weighing.units import check_loss_per, in_words, is_known, naming_loss_per
from training.weighing.untrained import Untrained
from training.weighing.usual_batch import Weigh, usual_weight

if TYPE_CHECKING:
    from training.weighing.subject import ComputeLoss, Look

log = logging.getLogger("training.weighing")

#: The name of a unit, or a function batch -> number of items.
LossPer = str | Callable[[Any], float]
#: Cuts that must agree before a unit is believed: one may lie.
CUTS = 3
#: Batches that are looked at before nothing is known.
MOST_BATCHES = 3


class Weigher:
    """Weighs each batch; measures first batches where nobody says a weight.

    ``batch.loss_weight`` comes first, then ``loss_per``, then what torch defines, then
    what is measured. While every batch has as much of each unit in proportion, units
    cannot be told apart; the first batch that differs is measured before it is used.

    Args:
        loss_per: the name of a unit, a function batch -> float, or None: measure.
        forward: ``(model, batch, weight) -> (0-d mean loss, weight, parts)``.
        loss_fn: passed beside the model.
        has_own_loss: whether the model computes its loss itself.
        by_losses: measure without gradients, as an evaluation does.
    Attributes:
        weigh: weighs the batch whose turn it is: ``ask``, or what leaves to that all
            but usual batches, as soon as all there is to do is count.
    Raises:
        ConfigError: no unit has this name.
    """

    def __init__(
        self,
        loss_per: LossPer | None,
        forward: ComputeLoss,
        loss_fn: Any = None,
        has_own_loss: bool = True,
        by_losses: bool = False,
    ) -> None:
        check_loss_per(loss_per)
        self._loss_per = loss_per
        self._function = naming_loss_per(loss_per) if callable(loss_per) else None
        self._said = overruling(loss_per)
        self._forward, self._loss_fn = forward, loss_fn
        self._has_own_loss, self._by_losses = has_own_loss, by_losses
        #: Whether a ``step_fn`` computes the loss.
        self.has_step = not has_own_loss and loss_fn is None
        self._counts = Counts(loss_fn)
        self.beside: Sequence[Any] = ()  # what a loss may move
        self.autocast: Any = None  # what the run computes in
        self._strategy = Strategy()
        self._model: nn.Module | None = None
        self._device = torch.device("cpu")
        self._loader, self._window = None, None  # type: Any, Any
        self._batches_a_window = 1
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        said: Any = self._loss_per
        unit = None if callable(said) else said
        self._told = Told(unit, is_settled=said is not None)
        self._reasons, self._num_empty = [], 0  # type: list[str], int
        self._allows_change = self._has_samples = self._is_aside = False
        self._untrained = Untrained(self._counts)
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
        self._model, self._device, self._loader = model, device, loader
        # Several parts of one batch make a window, too.
        self._batches_a_window = batches_a_window * self._strategy.size
        self._window, told = window, self._told
        if self._batches_a_window > 1 and (told.is_defined or told.is_nothing):
            self.reset()  # it did not matter so far
        self.weigh = self.ask
        self._tell_window()

    @property
    def is_sum(self) -> bool:
        """Whether the loss is a sum over its batch."""
        return self._told.unit == "sum"

    @property
    def verdict(self) -> str:
        """The unit in words, for people."""
        if callable(self._loss_per):
            return "a function of the batch"
        return "not known" if self._told.unit is None else in_words(self._told.unit)

    @property
    def label_use(self) -> LabelUse:
        """How the loss takes labels, as far as that is known."""
        return self._counts.label_use(self._told.is_shifted)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        settings = self._told.settings()
        if callable(given := self._loss_per):
            settings["unit"] = getattr(given, "__qualname__", type(given).__name__)
        return settings

    def take_over(self, saved: Mapping[str, Any] | None, allows_change: bool) -> None:
        """Go on with the unit of a checkpoint, unless a person says another.

        A unit that is found to be another one is refused unless ``allows_change``.
        """
        self.reset()
        self._allows_change = allows_change
        if saved and self._loss_per is None and is_known(saved["unit"], allows_change):
            self._told = Told.of(saved)

    def ask(self, batch: Any, source: Any) -> float:
        """Return what ``batch`` counts, as a call does; learn what is usual.

        Args:
            batch: on the host.
            source: what it came from: ``issued`` are its indices, or None.
        """
        weight = self(batch, source.issued)
        if self.weigh == self.ask:
            self._find_usual()
        return weight

    def _find_usual(self) -> None:
        """Count usual batches at once from here on, if all there is to do is count."""
        told, counts = self._told, self._counts
        if (
            self._function is not None
            or told.later.number is not None
            or told.undecided
        ):
            return
        left = told.live if len(told.live) > 1 else {}
        is_first = told.unit == next(iter(left), told.unit)
        if is_first and (told.is_settled or (told.has_waited and self._may_wait)):
            self.weigh = usual_weight(counts, told.unit, left, told.scale, self.ask)

    def __call__(self, batch: Any, issued: Any = None) -> float:
        """Return what ``batch``, on the host, counts in its window.

        Args:
            batch: may say it itself, as ``loss_weight``.
            issued: the indices of its samples, where a sampler issued them.
        Raises:
            ConfigError: a window has several, nothing being known; ``loss_per`` is off.
            DataError: the batch does not tell how many there are.
        """
        if (said := self._said(batch)) is not None:
            return said
        if self._function is not None:
            return self._function(batch)
        samples = None if issued is None else len(issued)
        if not self._told.is_settled and self._model is not None:
            return self._measured(batch, issued, samples)
        if self._told.later.is_due(batch):
            self._look_again(batch, issued)
        return self._known(batch, issued, samples)

    def _known(self, batch: Any, issued: Any, samples: int | None) -> float:
        if len(self._told.live) > 1:  # the first to tell them apart is measured
            _, weight, agree = self._told.compared(self._counts, batch, samples)
            return weight if agree else self._decided_late(batch, issued, samples)
        look = partial(self.look, batch, issued)
        if self._told.holds_nothing(self._counts, batch, samples, look):
            return 0.0
        return self._amount(batch, samples)

    def _look_again(self, batch: Any, issued: Any) -> None:
        """Refuse a unit that a later batch belies."""
        self.weigh = self.ask
        seen = self.look(batch, issued, list(self._told.live))
        if is_belied(self._told.live, seen, self._told.rest, self._told.norm):
            raise self._refusal(sentences.belied(seen, self.verdict))

    def evaluated(self, batch: Any, samples: int | None = None) -> float:
        """Return what a batch that is not trained on counts; it decides nothing.

        Args:
            batch: on the host.
            samples: in it, where that is known.
        """
        issued = None if samples is None else range(samples)
        if self._said(batch) is not None or self._function is not None:
            return self(batch, issued)
        run = self._told
        if self._model is None or run.is_decided:
            return self._amount(batch, samples)
        if run.unit is None and not run.is_settled:
            look = partial(self.look, batch, issued)
            return self._untrained.weight(batch, samples, look)
        self._told, self._is_aside = run.beside(), True
        try:
            return self._known(batch, issued, samples)
        finally:
            self._told, self._is_aside = replace(run, aside=self._told), False
            self._tell_window()

    def _amount(self, batch: Any, samples: int | None) -> float:
        return self._told.amount(self._counts, batch, samples)

    def _decided_late(self, batch: Any, issued: Any, samples: int | None) -> float:
        self.weigh = self.ask
        seen = self.look(batch, issued, list(self._told.live))
        had = [unit for unit, amount in self._told.live.items() if amount]
        if seen.is_over_nothing(had, self._counts.present(had, batch, samples)):
            return 0.0
        if seen.is_none:
            self._unknown(sentences.none(seen))
        elif seen.turns:
            self._keep(seen.live, seen)
        self._refuse_differing(batch, samples, seen)
        return self._amount(batch, samples)

    def _refuse_differing(self, batch: Any, samples: int | None, seen: Look) -> None:
        if self._told.has_parted(self._counts, batch, samples):
            self._unknown(sentences.undecided(self._told.live, seen.reasons))

    def _measured(self, batch: Any, issued: Any, samples: int | None) -> float:
        """Look at one of the first batches; decide when enough is known."""
        if self._told.expected is not None:
            self._check_expected(batch, issued)
            return self(batch, issued)
        if not self._told.live and (unit := self._defined(batch)) is not None:
            self._told = Told(unit, is_settled=True, is_defined=True)
            log.info("%s", sentences.defined(unit))
            return self._amount(batch, samples)
        self._has_samples = self._counts("samples", batch, samples) is not None
        if not self._told.live:
            amounts = self._counts.all(batch, samples)
            self._told.live = {unit: float(n) for unit, n in amounts.items()}
            self._told.unit = next(iter(self._told.live), None)
        if self._need_not_be_measured(batch, samples):
            self._told.has_waited = True
            return self._amount(batch, samples)
        self.weigh = self.ask
        seen = self.look(batch, issued, list(self._told.live))
        if seen.said is not None:
            self._settle_as_said(seen)
            return self._amount(batch, samples)
        there = self._counts.present(self._told.live, batch, samples)
        is_empty = seen.is_over_nothing(self._told.live, there)
        if is_empty and self._num_empty < MOST_BATCHES:
            self._num_empty += 1
            if not (self._told.batches or self._told.has_waited):
                self._told = Told()  # the next one is the first
            return 0.0
        self._told.batches += 1
        self._reasons += seen.reasons
        is_first = self._told.batches == 1 and not self._told.has_waited
        if seen.is_none:
            self._unknown(sentences.none(seen))
        elif seen.turns:
            self._told.cuts += seen.turns
            self._keep(self._counts.of_torch(seen.live), seen, is_first)
        elif there:
            self._keep(there, seen, is_first)  # it is a mean over something
        if not self._told.is_settled:
            self._decide(seen)
        self._refuse_differing(batch, samples, seen)
        return self._amount(batch, samples)

    def _need_not_be_measured(self, batch: Any, samples: int | None) -> bool:
        """Whether nothing can be told: all units have gone together so far."""
        if not self._may_wait or self._told.has_parted(self._counts, batch, samples):
            return False
        # Else it hangs on the unit whether the batch is trained on.
        there = self._counts.present(self._told.live, batch, samples)
        return len(there) in (0, len(self._told.live))

    @property
    def _may_wait(self) -> bool:
        """Whether each batch is a step, which trains and reports alike by any unit.

        Then a ``step_fn``, which may do more than compute a loss, is called no more
        often than there are batches.
        """
        return self.has_step and self._batches_a_window <= 1 and bool(self._told.live)

    def _decide(self, seen: Look) -> None:
        """Believe the unit, or go on looking, or give up."""
        told, most = self._told, min(MOST_BATCHES, self._batches_a_window)
        if told.cuts >= CUTS or (told.batches >= MOST_BATCHES and told.cuts):
            told.is_settled = True
            is_known = self._counts.is_torch_loss and len(told.live) == 1
            may_differ = self._batches_a_window > 1 and not is_known
            told.later = LaterLooks(0 if may_differ else None)
            log.info("%s", sentences.found(seen, list(told.live)))
        elif not told.cuts and (seen.is_final or told.batches >= most):
            self._unknown(sentences.unknown(self._reasons))

    def _keep(self, live: list[str], seen: Look, is_first: bool = False) -> None:
        """Go on with the units in ``live``, on the scale of the batches before."""
        told = self._told
        if (unit := told.keep(live, is_first)) != told.unit:
            self._unknown(sentences.late(unit))
            return
        told.note(seen.fit)
        self._tell_window()

    def look(self, batch: Any, issued: Any, live: list[str] | None = None) -> Look:
        """Return what ``batch`` tells, whatever anybody says; arguments as there."""
        from training.weighing.look import look
        from training.weighing.subject import Subject

        assert self._model is not None
        what = self._model, self._forward, self._counts, self._device, self._loader
        how = self._loss_fn, self._has_own_loss, self._by_losses
        subject = Subject(*what, *how, self.beside, self.autocast, self._strategy)
        if not self._is_aside:
            told_by = self._counts, batch, None if issued is None else len(issued)
            subject.has_parted = self._told.has_parted(*told_by)
        return look(subject, batch, issued, live, max(1, CUTS - self._told.cuts % CUTS))

    def _settle_as_said(self, seen: Look) -> None:
        self._told.settle_without_unit()
        said = seen.shares.get("said")
        if said is not None and seen.fit is not None and "said" not in seen.live:
            log.warning("%s", sentences.disagreement(seen, said))

    def _check_expected(self, batch: Any, issued: Any) -> None:
        """Compare the unit of a checkpoint with what this run's first batch tells."""
        told = self._told
        expected, told.expected, told.is_settled = told.expected, None, True
        if (unit := self._defined(batch)) is not None:
            live = [unit]
        else:
            seen = self.look(batch, issued)
            live = [] if seen.is_none or seen.said is not None else seen.live
        # A converged loss has no gradient to tell by.
        if not live or expected in live or set(told.live) & set(live):
            return
        if not self._allows_change:
            raise CheckpointError(sentences.another(str(expected), live[0]))
        amounts = self._counts.all(batch, None if issued is None else len(issued))
        told.live = {unit: float(amounts.get(unit, 0.0)) for unit in live}
        told.unit, told.scale, told.aside = live[0], 1.0, None
        told.is_defined = unit is not None
        self._tell_window()

    def _defined(self, batch: Any) -> str | None:
        """Return the unit of torch's own loss, unless it matters how rows mix."""
        return None if self._batches_a_window > 1 else self._counts.defined(batch)

    def _unknown(self, why: str) -> None:
        """Refuse, where it matters; else warn, and count samples or batches."""
        if self._is_aside:
            log.warning("%s", sentences.aside(self.verdict, why))
            self._told.settle_undecided()
            return
        if self._batches_a_window > 1:
            raise self._refusal(why)
        words = sentences.evaluated if self._by_losses else sentences.warning
        counted = "samples" if self._has_samples else "batches"
        self._told.settle_without_unit(counted)
        log.warning("%s", words(why, counted))

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(sentences.refusal(self._batches_a_window, why))

    def _tell_window(self) -> None:
        if self._window is not None:
            self._window.sums_losses = self.is_sum
