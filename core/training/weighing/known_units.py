"""What the first batches have told of the unit, as a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import isclose
from typing import TYPE_CHECKING, Any

from training.weighing.counts import Contents
from training.weighing.later_looks import LaterLooks
from training.weighing.units import OF_LABELS, in_words

if TYPE_CHECKING:
    from training.weighing.fit import Fit
    from training.weighing.subject import Look


class Phase(Enum):
    """How far a unit is known."""

    SOUGHT = "first batches are looked at, to find it"
    RESUMED = "a checkpoint says it; the next batch is compared with that"
    SETTLED = "no batch is looked at any more to find it"


@dataclass(slots=True)
class KnownUnits:
    """What is known so far of what a loss is a mean over.

    ``Search`` moves it on by its methods from ``begin`` on; all combinations are:

    ======= ================= ============ =========================================
    phase   unit              possible     what is done with a batch
    ======= ================= ============ =========================================
    SOUGHT  None              none         looked at: it is the first
    SOUGHT  first of possible what is left looked at, unless all units may wait
    RESUMED a name            as saved     compared with the checkpoint
    SETTLED a name            none or one  counted: the unit was said, defined, found
    SETTLED first of possible more         counted while it has as much of each as
                                           the first had, else looked at
    SETTLED None              none         says its weight, or samples or batches do
    ======= ================= ============ =========================================

    Attributes:
        unit: the one that weighs; None: not known, or a function says it.
        possible: unit -> amount in the first batch, of all that it may be, ``unit``
            first; empty where that is known. A checkpoint calls it ``live``.
        residual: the most of a gradient that shares have left unexplained: ``r``.
        norm: the largest 2-norm of those gradients; 0: not known.
        scale: of the amounts, so that they go on from those of an earlier unit.
        num_cuts: that have told something.
        num_batches: that were looked at.
        has_waited: whether batches counted that nobody had to look at.
        phase: how far the unit is known.
        is_defined: whether torch defines the loss: nothing was measured.
        later: batches to look at again.
        undecided: units that it may be besides, where nothing decides any more. A batch
            that has none of one may yet be a mean over nothing.
        evaluated: what is known from batches that are not trained on, and only for
            them: ``aside``.
    """

    unit: str | None = None
    possible: dict[str, float] = field(default_factory=dict)
    residual: float = 0.0
    norm: float = 0.0
    scale: float = 1.0
    num_cuts: int = 0
    num_batches: int = 0
    has_waited: bool = False
    phase: Phase = Phase.SOUGHT
    is_defined: bool = False
    later: LaterLooks = field(default_factory=LaterLooks)
    undecided: list[str] = field(default_factory=list)
    evaluated: KnownUnits | None = None

    @property
    def is_settled(self) -> bool:
        """Whether no batch is looked at any more to find the unit."""
        return self.phase is Phase.SETTLED

    @property
    def has_counted(self) -> bool:
        """Whether a batch before the one that is looked at has counted."""
        is_sought = self.phase is Phase.SOUGHT
        return not is_sought or self.has_waited or self.num_batches > 0

    @property
    def is_decided(self) -> bool:
        """Whether no batch can tell anything more of what others count."""
        return self.is_settled and len(self.possible) <= 1 and not self.undecided

    @property
    def is_shifted(self) -> bool | None:
        """Whether the loss takes logit t for label t + 1; None: that is not told.

        Not while it may be either; and who says "labels" says what a batch weighs.
        """
        either = {self.unit, *self.possible} & {"labels", "shifted_labels"}
        if not self.is_settled or len(either) != 1:
            return None
        is_found = bool(self.possible) or self.is_defined
        return True if either == {"shifted_labels"} else False if is_found else None

    @property
    def verdict(self) -> str:
        """The unit in words, for people."""
        return "not known" if self.unit is None else in_words(self.unit)

    def on_scale(self, unit: str) -> float:
        """Return the factor by which amounts of ``unit``, or batches, go on from here.

        With it the first batch counts as much by ``unit`` as by the one before.
        """
        before = self.possible.get(self.unit or "")
        now = 1.0 if unit == "batches" else self.possible.get(unit)
        return self.scale * (before / now) if before and now else self.scale

    def amount(self, batch: Contents) -> float:
        """Return what ``batch`` counts: by samples, where no unit is known.

        Raises:
            DataError: the batch does not tell.
        """
        if self.unit is None or self.unit == "sum":
            amount = batch("samples")
            return self.scale * (1.0 if amount is None else amount)
        return self.scale * batch.needed(self.unit)

    def compared(self, batch: Contents) -> tuple[str | None, float, bool]:
        """Return by which of the units left ``batch`` counts, its weight, if all agree.

        That is the first of them that it tells; others say nothing.

        Raises:
            DataError: the batch tells none of them.
        """
        amounts = self._amounts(batch)
        if not amounts:
            return self.unit, self.amount(batch), True
        first = next(iter(amounts))
        return first, self.on_scale(first) * amounts[first], self._agree(amounts)

    def has_parted(self, batch: Contents) -> bool:
        """Whether ``batch`` counts otherwise, or not at all, by one unit left."""
        amounts = self._amounts(batch)
        return len(amounts) < len(self.possible) or not self._agree(amounts)

    def goes_on_alike(self, batch: Contents) -> bool:
        """Whether ``batch`` tells nothing: all units have gone together so far."""
        # Where it has none of some units, they disagree on whether it counts at all.
        there = len(batch.present(self.possible)) in (0, len(self.possible))
        return there and not self.has_parted(batch)

    def _amounts(self, batch: Contents) -> dict[str, float]:
        """Return how much ``batch`` holds of those units left that it tells."""
        every = {unit: batch(unit) for unit in self.possible}
        return {unit: each for unit, each in every.items() if each is not None}

    def _agree(self, amounts: Mapping[str, float]) -> bool:
        """Whether a batch has as much of each unit, in proportion, as the first had."""
        first = next(iter(amounts), "")
        return all(
            isclose(own * self.possible[first], amounts[first] * self.possible[unit])
            for unit, own in amounts.items()
        )

    def begin(self, amounts: dict[str, float]) -> None:
        """Seek the unit among all that the first batch has, by its ``amounts``."""
        self.possible, self.unit = amounts, next(iter(amounts), None)

    def keep(self, units: list[str], told: Fit | None) -> bool:
        """Go on with ``units``, on the scale of the batches before.

        Args:
            units: what a batch has left of them.
            told: how well shares explain its gradient.
        Returns:
            Whether anything puts what the first of them weighs on that scale.
        """
        left = {unit: self.possible[unit] for unit in units if unit in self.possible}
        unit, before = next(iter(left)), self.unit
        if before is not None and before != unit and self.has_counted:
            if unit == "sum" or not (self.possible[unit] and self.possible[before]):
                return False
            self.scale *= self.possible[before] / self.possible[unit]
        self.possible, self.unit, self.evaluated = left, unit, None
        if told is not None:
            self.residual = max(self.residual, told.residual)
            self.norm = max(self.norm, told.norm)
        return True

    def holds_nothing(
        self, batch: Contents, look: Callable[[Contents, list[str]], Look]
    ) -> bool:
        """Whether ``batch`` is a mean over nothing, by a unit that was not decided."""
        there = batch.present(self.undecided)
        if there == self.undecided:
            return False
        if look(batch, self.undecided).is_over_nothing(self.undecided, batch):
            return True
        self.undecided = there  # it is a mean over something else
        return False

    def settle(self, may_differ: bool) -> None:
        """Believe what is left; some later batches are looked at if it may differ."""
        self.phase, self.later = Phase.SETTLED, LaterLooks(0 if may_differ else None)

    def change(self, amounts: dict[str, float], is_defined: bool) -> None:
        """Begin again where the unit is another than that of a checkpoint."""
        self.begin(amounts)
        self.scale, self.evaluated, self.is_defined = 1.0, None, is_defined

    def for_evaluation(self) -> KnownUnits:
        """Return a copy of what holds for batches that are not trained on."""
        own = self.evaluated or self
        return replace(own, phase=Phase.SETTLED, evaluated=None, later=LaterLooks())

    def settle_undecided(self) -> None:
        """Count by the unit that is preferred, whatever batches tell from here on."""
        # Not masks: one of padding is all zeros where nothing is padded.
        self.undecided = [
            unit
            for unit, amount in self.possible.items()
            if amount and unit in OF_LABELS
        ]
        self.possible = {}

    def settle_without_unit(self, counted: str | None = None) -> None:
        """Look at no batch any more: none tells a unit, or each says its weight.

        Args:
            counted: samples or batches, where none tells it.
        """
        if counted is None:
            self.scale = 1.0
        else:
            self.scale = self.on_scale(counted) if self.has_counted else 1.0
            self.settle_undecided()
        self.phase, self.possible = Phase.SETTLED, {}
        self.unit = self.evaluated = None

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        return {
            "unit": self.unit,
            "live": dict(self.possible),
            "r": self.residual,
            "norm": self.norm,
            "scale": self.scale,
            "cuts": self.num_cuts,
            "batches": self.num_batches,
            "has_waited": self.has_waited,
            "is_settled": self.phase is not Phase.SOUGHT,
            "is_defined": self.is_defined,
            "later": self.later.number,
            "num_ignoring": self.later.num_ignoring,
            "undecided": list(self.undecided),
            "aside": None if self.evaluated is None else self.evaluated.settings(),
        }

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> KnownUnits:
        """Return what ``settings`` has kept; its unit is to be compared."""
        unit, evaluated, phase = saved["unit"], saved.get("aside"), Phase.SOUGHT
        if saved["is_settled"]:
            phase = Phase.SETTLED if unit is None else Phase.RESUMED
        return cls(
            unit=unit,
            possible={str(name): float(n) for name, n in saved["live"].items()},
            residual=float(saved["r"]),
            norm=float(saved.get("norm", 0.0)),  # earlier releases do not say it
            scale=float(saved["scale"]),
            num_cuts=int(saved["cuts"]),
            num_batches=int(saved["batches"]),
            # Files of earlier releases do not say it.
            has_waited=saved.get("has_waited", bool(saved["live"]) > saved["batches"]),
            phase=phase,
            is_defined=saved.get("is_defined", False),
            later=LaterLooks(saved.get("later"), saved.get("num_ignoring", 0)),
            undecided=list(saved.get("undecided", ())),
            evaluated=None if evaluated is None else cls.of(evaluated),
        )
