"""The search for the unit of a loss: which batches are looked at, and what follows."""

from __future__ import annotations

import logging

from training.errors import CheckpointError, ConfigError
from training.weighing import sentences
from training.weighing.counts import Contents
from training.weighing.known_units import KnownUnits, Phase
from training.weighing.later_looks import is_belied
from training.weighing.subject import Aim, Look, Subject
from training.weighing.units import OF_LABELS, in_words

log = logging.getLogger("training.weighing")

#: Cuts that must agree before a unit is believed: one may lie.
CUTS = 3
#: Batches that are looked at before nothing is known.
MOST_BATCHES = 3


class Search:
    """Weighs batches by what is known of the unit; looks at those that tell more.

    While every batch has as much of each unit in proportion, units cannot be told
    apart; the first batch that differs is measured before it is used.

    Args:
        subject: what is measured.
        known: what is known before.
        allows_change: whether another unit than that of a checkpoint is taken.
    Attributes:
        known: what is known so far.
        last_look: what the batch told that was looked at last.
    """

    def __init__(
        self, subject: Subject, known: KnownUnits, allows_change: bool = False
    ) -> None:
        self._subject, self.known, self._allows_change = subject, known, allows_change
        self.last_look = Look()
        self._reasons: list[str] = []  # why batches told nothing
        self._num_empty = 0
        #: What an evaluated batch was counted by before any was trained on.
        self._untrained_unit: str | None = None

    def weight(self, own: Contents) -> float:
        """Return what a batch or part counts in its window.

        Raises:
            ConfigError: a window has several, nothing being known.
            DataError: the batch does not tell how many there are.
        """
        known = self.known
        if known.phase is Phase.RESUMED:
            self._compare_resumed(own.whole())
        if known.phase is Phase.SOUGHT:
            return self._once_seen(own, self._seek(own.whole()))
        # All must look at once, and parts differ from process to process.
        shared = None if self._subject.strategy.is_divided else own.batch
        if known.later.is_due(shared):
            self._look_again(own.whole())
        weight = self._as_before(own)
        if weight is None:
            weight = self._once_seen(own, self._decide_late(own.whole()))
        return weight

    def evaluated(self, batch: Contents) -> float:
        """Return what a batch that is not trained on counts; it decides nothing."""
        known = self.known
        if known.is_decided:
            return known.amount(batch)
        if known.unit is None and not known.is_settled:
            return self._untrained(batch)
        evaluation = EvaluatedSearch(self._subject, known.for_evaluation())
        weight = evaluation.weight(batch)
        known.evaluated = evaluation.known
        return weight

    def _untrained(self, batch: Contents) -> float:
        """Return what a batch counts that is evaluated before any was trained on.

        It weighs what it tells itself; one that tells nothing, as that before it.

        Raises:
            DataError: those before it told a unit that it does not tell.
        """
        before, unit = self._untrained_unit, batch.defined()
        if unit is None:
            look = self.look(batch)
            if look.said is not None:
                return 1.0  # step_fn says it for the batch itself
            if look.is_over_nothing(OF_LABELS, batch):
                return 0.0
            units = look.units or [before or _counted(batch)]
            unit = before if before in units else units[0]
        if before not in (None, unit):
            why = sentences.mixed(unit, str(before))
            log.warning("%s", sentences.guessed(in_words(unit), why))
        self._untrained_unit = unit
        return 1.0 if unit == "batches" else batch.needed(unit)

    def _as_before(self, own: Contents) -> float | None:
        """Return what ``own`` counts, None if it is the first to tell units apart."""
        known = self.known
        if len(known.possible) > 1:
            _, weight, agree = known.compared(own)
            return weight if agree else None
        if known.undecided and known.holds_nothing(own, self.look):
            return 0.0
        return known.amount(own)

    def _once_seen(self, own: Contents, is_counted: bool) -> float:
        """Return what ``own`` counts, now that its batch was looked at."""
        if not is_counted:
            return 0.0
        if self._has_parted(own):
            why = sentences.undecided(self.known.possible, self.last_look.reasons)
            self._unknown(why, own)
        return self.known.amount(own)

    def _has_parted(self, own: Contents) -> bool:
        """Whether the units left weigh ``own`` unlike the batches before."""
        return self.known.has_parted(own)

    def _look_again(self, batch: Contents) -> None:
        """Refuse a unit that a later batch belies."""
        known, units = self.known, list(self.known.possible)
        look = self.look(batch, units, is_known=True)
        # If one process is unsure, as rounding differs, all measure in full: their
        # passes may wait for one another.
        if self._subject.strategy.sum([float(not look.units)]) != [0.0]:
            look = self.look(batch, units)
        if is_belied(units, look, known.residual, known.norm):
            raise self._refusal(sentences.belied(look, known.verdict))

    def _decide_late(self, batch: Contents) -> bool:
        """Look at the first batch that tells units apart; return whether it counts."""
        look = self.look(batch, list(self.known.possible))
        had = [unit for unit, amount in self.known.possible.items() if amount]
        if look.is_over_nothing(had, batch):
            return False
        self._take(look.units if look.num_cuts else [], look, batch)
        return True

    def _seek(self, batch: Contents) -> bool:
        """Look at one of the first batches, and decide; return whether it counts."""
        known = self.known
        if not known.possible:
            if (unit := self._defined(batch)) is not None:
                self.known = KnownUnits(unit, phase=Phase.SETTLED, is_defined=True)
                log.info("%s", sentences.defined(unit))
                return True
            known.begin(batch.all())
        if self.may_wait and known.goes_on_alike(batch):
            known.has_waited = True
            return True
        look = self.look(batch, list(known.possible))
        if look.said is not None:
            known.settle_without_unit()
            if look.belies_said:
                log.warning("%s", sentences.disagreement(look))
            return True
        is_over_nothing = look.is_over_nothing(known.possible, batch)
        if is_over_nothing and self._num_empty < MOST_BATCHES:
            self._num_empty += 1
            if not known.has_counted:
                self.known = KnownUnits()  # the next one is the first
            return False
        self._reasons += look.reasons
        known.num_cuts += 0 if look.is_none else look.num_cuts
        # A batch that tells nothing still rules out units of which it has none.
        units = batch.counts.of_torch(look.units)
        if not look.num_cuts:
            units = batch.present(known.possible)
        self._take(units, look, batch)
        if not known.is_settled:
            self._decide(look, batch)
        known.num_batches += 1
        return True

    @property
    def may_wait(self) -> bool:
        """Whether each batch is a step, which trains and reports alike by any unit.

        Then a ``step_fn``, which may do more than compute a loss, is called no more
        often than there are batches.
        """
        subject = self._subject
        is_step = subject.has_step and subject.batches_a_window <= 1
        return is_step and bool(self.known.possible)

    def _decide(self, look: Look, batch: Contents) -> None:
        """Believe the unit, or go on looking, or give up."""
        known, num_batches = self.known, self.known.num_batches + 1
        batches_a_window = self._subject.batches_a_window
        if known.num_cuts >= CUTS or (num_batches >= MOST_BATCHES and known.num_cuts):
            is_known = batch.counts.is_torch_loss and len(known.possible) == 1
            known.settle(may_differ=batches_a_window > 1 and not is_known)
            log.info("%s", sentences.found(look, list(known.possible)))
            return
        most = min(MOST_BATCHES, batches_a_window)
        if not known.num_cuts and (look.is_final or num_batches >= most):
            self._unknown(sentences.unknown(self._reasons), batch)

    def _take(self, units: list[str], look: Look, batch: Contents) -> None:
        """Go on with ``units``, if any, on the scale of those before."""
        if look.is_none:
            self._unknown(sentences.none(look), batch)
        elif units and not self.known.keep(units, look.fit):
            self._unknown(sentences.late(units[0]), batch)

    def look(
        self, batch: Contents, units: list[str] | None = None, is_known: bool = False
    ) -> Look:
        """Return what ``batch`` tells, whatever anybody says.

        Args:
            batch: what is looked at.
            units: those that earlier batches left; None: all.
            is_known: whether one cut is to confirm them.
        """
        from training.weighing import measure

        known = self.known
        # Of a unit that is settled by fewer cuts, later ones make all the same.
        num_cuts = CUTS if known.is_settled else CUTS - known.num_cuts % CUTS
        aim = Aim(units, num_cuts, known.has_parted(batch), is_known)
        self.last_look = measure.look(self._subject, batch, aim)
        return self.last_look

    def _compare_resumed(self, batch: Contents) -> None:
        """Compare the unit of a checkpoint with what this run's first batch tells."""
        known = self.known
        known.phase = Phase.SETTLED
        if (unit := self._defined(batch)) is not None:
            units = [unit]
        else:
            look = self.look(batch)
            units = [] if look.is_none or look.said is not None else look.units
        # A converged loss has no gradient to tell by.
        if not units or {known.unit, *known.possible} & set(units):
            return
        if not self._allows_change:
            raise CheckpointError(sentences.another(str(known.unit), units[0]))
        amounts = batch.all()
        amounts = {each: amounts.get(each, 0.0) for each in units}
        known.change(amounts, is_defined=unit is not None)

    def _defined(self, batch: Contents) -> str | None:
        """Return the unit of torch's own loss, unless it matters how rows mix."""
        return None if self._subject.batches_a_window > 1 else batch.defined()

    def _unknown(self, why: str, batch: Contents) -> None:
        """Refuse, where it matters; else warn, and count samples or batches."""
        if self._subject.batches_a_window > 1:
            raise self._refusal(why)
        words = sentences.evaluated if self._subject.by_losses else sentences.warning
        counted = _counted(batch)
        self.known.settle_without_unit(counted)
        log.warning("%s", words(why, counted))

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(sentences.refusal(self._subject.batches_a_window, why))


class EvaluatedSearch(Search):
    """Weighs batches that are evaluated, of which none decides for those trained on."""

    def _unknown(self, why: str, batch: Contents) -> None:
        """Warn, and count by the unit that is preferred."""
        log.warning("%s", sentences.guessed(self.known.verdict, why))
        self.known.settle_undecided()


def _counted(batch: Contents) -> str:
    """Return what counts where no unit is known: samples, if ``batch`` tells those."""
    return "batches" if batch("samples") is None else "samples"
