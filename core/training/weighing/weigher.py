"""What a batch weighs: said, or by the unit that the first batches told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.errors import CheckpointError, ConfigError
from training.hardware.strategy import Strategy
from training.weighing import sentences
from training.weighing.candidates import Contents, Counts, LabelUse, said_by
from training.weighing.later_looks import LaterLooks, is_belied
from training.weighing.subject import ComputeLoss, Look, Precision, Subject
from training.weighing.told import Phase, Told
from training.weighing.units import check_loss_per, in_words, is_known
from training.weighing.untrained import Untrained
from training.weighing.usual_batch import Weigh, usual_weight

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
        self.has_step = not has_own_loss and loss_fn is None
        self.counts = Counts(loss_fn)
        how = has_own_loss, by_losses, beside, autocast, strategy or Strategy()
        self._subject = Subject(forward, self.counts, loss_fn, *how)
        self._window: Any = None
        self._batches_a_window = 1
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        said: Any = self._loss_per
        phase = Phase.SOUGHT if said is None else Phase.SETTLED
        self._told = Told(None if callable(said) else said, phase=phase)
        self._reasons: list[str] = []  # why batches told nothing
        self._num_empty = 0
        self._seen = Look()  # in the batch that was looked at last
        self._allows_change = False
        self._untrained = Untrained()
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
        what = self._subject
        what.model, what.device, what.loader = model, device, loader
        # Several parts of one batch make a window, too.
        self._batches_a_window = batches_a_window * what.strategy.size
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
        return self.counts.label_use(self._told.is_shifted)

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
        told, counts = self._told, self.counts
        looks_again = told.later.number is not None or told.undecided
        if callable(self._loss_per) or looks_again:
            return
        left = told.live if len(told.live) > 1 else {}
        is_first = told.unit == next(iter(left), told.unit)
        if is_first and (told.is_settled or (told.has_waited and self._may_wait)):
            self.weigh = usual_weight(counts, told.unit, left, told.scale, self.ask)

    def __call__(self, batch: Any, issued: Any = None) -> float:
        """Return what ``batch``, on the host, counts in its window.

        Args:
            batch: may say it itself, as ``loss_weight``.
            issued: the indices of its samples, where the run's sampler issued them.
        Raises:
            ConfigError: a window has several, nothing being known; ``loss_per`` is off.
            DataError: the batch does not tell how many there are.
        """
        if (said := self._said(batch)) is not None:
            return said
        samples = None if issued is None else len(issued)
        own = Contents(self.counts, batch, samples, issued)
        return self._weight(own, lambda: own)

    def evaluated(self, batch: Any, samples: int | None = None) -> float:
        """Return what a batch that is not trained on counts; it decides nothing.

        Args:
            batch: on the host.
            samples: in it, where that is known.
        """
        if (said := self._said(batch)) is not None:
            return said
        own = Contents(self.counts, batch, samples)
        run = self._told
        if run.is_decided:
            return run.amount(own)
        if run.unit is None and not run.is_settled:
            return self._untrained.weight(own, self.look)
        self._told = run.beside()
        try:
            return self._going_on(own, lambda: own)
        finally:
            self._told = replace(run, aside=self._told)
            self._tell_window()

    def _weight(self, own: Contents, whole: Callable[[], Contents]) -> float:
        """Return what ``own`` counts; ``whole`` returns the batch that it is of."""
        if self._told.phase is Phase.RESUMED:
            self._compare_resumed(whole())
        if self._told.phase is Phase.SOUGHT:
            return self._once_seen(own, self._seek(whole()))
        if self._told.later.number is not None:
            # A part is another one in each process.
            shared = None if self._subject.strategy.is_divided else own.batch
            if self._told.later.is_due(shared):
                self._look_again(whole())
        return self._going_on(own, whole)

    def _going_on(self, own: Contents, whole: Callable[[], Contents]) -> float:
        """Return what ``own`` counts by what is known so far."""
        weight = self._as_before(own)
        if weight is None:
            weight = self._once_seen(own, self._decide_late(whole()))
        return weight

    def _as_before(self, own: Contents) -> float | None:
        """Return what ``own`` counts, None if it is the first to tell units apart."""
        told = self._told
        if len(told.live) > 1:
            _, weight, agree = told.compared(own)
            return weight if agree else None
        if told.undecided and told.holds_nothing(own, self.look):
            return 0.0
        return told.amount(own)

    def _once_seen(self, own: Contents, is_counted: bool) -> float:
        """Return what ``own`` counts, now that its batch was looked at."""
        if not is_counted:
            return 0.0
        if self._has_parted(own):
            why = sentences.undecided(self._told.live, self._seen.reasons)
            self._unknown(why, own)
        return self._told.amount(own)

    def _has_parted(self, own: Contents) -> bool:
        """Whether the units left weigh ``own`` unlike the batches before."""
        return self._told.has_parted(own)

    def _look_again(self, batch: Contents) -> None:
        """Refuse a unit that a later batch belies."""
        self.weigh = self.ask
        seen = self.look(batch, list(self._told.live))
        if is_belied(self._told.live, seen, self._told.rest, self._told.norm):
            raise self._refusal(sentences.belied(seen, self.verdict))

    def _decide_late(self, batch: Contents) -> bool:
        """Look at the first batch that tells units apart; return whether it counts."""
        self.weigh = self.ask
        seen = self.look(batch, list(self._told.live))
        had = [unit for unit, amount in self._told.live.items() if amount]
        if seen.is_over_nothing(had, batch.present(had)):
            return False
        self._take(seen.live if seen.turns else [], seen, batch)
        return True

    def _seek(self, batch: Contents) -> bool:
        """Look at one of the first batches, and decide; return whether it counts."""
        told = self._told
        if not told.live:
            if (unit := self._defined(batch)) is not None:
                self._told = Told(unit, phase=Phase.SETTLED, is_defined=True)
                log.info("%s", sentences.defined(unit))
                return True
            told.live = batch.all()
            told.unit = next(iter(told.live), None)
        if self._may_wait and told.goes_on_alike(batch):
            told.has_waited = True
            return True
        self.weigh = self.ask
        seen = self.look(batch, list(told.live))
        if seen.said is not None:
            told.settle_without_unit()
            if seen.belies_said:
                log.warning("%s", sentences.disagreement(seen))
            return True
        there = batch.present(told.live)
        if seen.is_over_nothing(told.live, there) and self._num_empty < MOST_BATCHES:
            self._num_empty += 1
            if not told.has_counted:
                self._told = Told()  # the next one is the first
            return False
        self._reasons += seen.reasons
        told.cuts += 0 if seen.is_none else seen.turns
        # One that tells nothing is a mean over something of which there is any.
        live = self.counts.of_torch(seen.live) if seen.turns else there
        self._take(live, seen, batch)
        if not told.is_settled:
            self._decide(seen, batch)
        told.batches += 1
        return True

    @property
    def _may_wait(self) -> bool:
        """Whether each batch is a step, which trains and reports alike by any unit.

        Then a ``step_fn``, which may do more than compute a loss, is called no more
        often than there are batches.
        """
        return self.has_step and self._batches_a_window <= 1 and bool(self._told.live)

    def _decide(self, seen: Look, batch: Contents) -> None:
        """Believe the unit, or go on looking, or give up."""
        told, most = self._told, min(MOST_BATCHES, self._batches_a_window)
        batches = told.batches + 1
        if told.cuts >= CUTS or (batches >= MOST_BATCHES and told.cuts):
            told.phase = Phase.SETTLED
            is_known = self.counts.is_torch_loss and len(told.live) == 1
            may_differ = self._batches_a_window > 1 and not is_known
            told.later = LaterLooks(0 if may_differ else None)
            log.info("%s", sentences.found(seen, list(told.live)))
        elif not told.cuts and (seen.is_final or batches >= most):
            self._unknown(sentences.unknown(self._reasons), batch)

    def _take(self, live: list[str], seen: Look, batch: Contents) -> None:
        """Go on with the units in ``live``, if any, on the scale of those before."""
        if seen.is_none:
            self._unknown(sentences.none(seen), batch)
        elif live and not self._told.keep(live, seen.fit):
            self._unknown(sentences.late(live[0]), batch)
        self._tell_window()

    def look(self, batch: Contents, live: list[str] | None = None) -> Look:
        """Return what ``batch`` tells, whatever anybody says.

        Args:
            batch: what is looked at.
            live: units that earlier batches left; None: all.
        """
        from training.weighing.look import look

        told = self._told
        has_parted = told.phase is not Phase.ASIDE and told.has_parted(batch)
        subject = replace(self._subject, has_parted=has_parted)
        turns = CUTS - told.cuts % CUTS
        self._seen = look(subject, batch, live, turns)
        return self._seen

    def _compare_resumed(self, batch: Contents) -> None:
        """Compare the unit of a checkpoint with what this run's first batch tells."""
        told = self._told
        told.phase = Phase.SETTLED
        if (unit := self._defined(batch)) is not None:
            live = [unit]
        else:
            seen = self.look(batch)
            live = [] if seen.is_none or seen.said is not None else seen.live
        # A converged loss has no gradient to tell by.
        if not live or told.unit in live or set(told.live) & set(live):
            return
        if not self._allows_change:
            raise CheckpointError(sentences.another(str(told.unit), live[0]))
        amounts = batch.all()
        told.live = {unit: amounts.get(unit, 0.0) for unit in live}
        told.unit, told.scale, told.aside = live[0], 1.0, None
        told.is_defined = unit is not None
        self._tell_window()

    def _defined(self, batch: Contents) -> str | None:
        """Return the unit of torch's own loss, unless it matters how rows mix."""
        return None if self._batches_a_window > 1 else batch.defined()

    def _unknown(self, why: str, batch: Contents) -> None:
        """Refuse, where it matters; else warn, and count samples or batches."""
        if self._told.phase is Phase.ASIDE:
            log.warning("%s", sentences.aside(self.verdict, why))
            self._told.settle_undecided()
            return
        if self._batches_a_window > 1:
            raise self._refusal(why)
        words = sentences.evaluated if self._subject.by_losses else sentences.warning
        counted = "batches" if batch("samples") is None else "samples"
        self._told.settle_without_unit(counted)
        log.warning("%s", words(why, counted))

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(sentences.refusal(self._batches_a_window, why))

    def _tell_window(self) -> None:
        if self._window is not None:
            self._window.sums_losses = self.is_sum
