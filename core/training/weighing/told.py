"""What the first batches have told of the unit, as a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.weighing.later_looks import LaterLooks


@dataclass(slots=True)
class Told:
    """What is known so far of what a loss is a mean over.

    Attributes:
        unit: the one that weighs; None: not known, or a function says it.
        live: unit -> amount in the first batch, of all that it may be, ``unit`` first;
            empty where that is known.
        rest: the most of a gradient that shares have left unexplained.
        scale: of the amounts, so that they go on from those of an earlier unit.
        cuts: that have told something.
        batches: that were looked at.
        has_waited: whether batches counted that nobody had to look at.
        is_settled: whether no batch is looked at any more to find the unit.
        is_defined: whether that is since torch defines the loss: nothing was measured.
        expected: the unit of a checkpoint, to compare with what the next batch tells.
        later: batches to look at again.
    """

    unit: str | None = None
    live: dict[str, float] = field(default_factory=dict)
    rest: float = 0.0
    scale: float = 1.0
    cuts: int = 0
    batches: int = 0
    has_waited: bool = False
    is_settled: bool = False
    is_defined: bool = False
    expected: str | None = None
    later: LaterLooks = field(default_factory=LaterLooks)

    @property
    def is_nothing(self) -> bool:
        """Whether it is settled that no unit is known."""
        return self.is_settled and self.unit is None

    @property
    def is_shifted(self) -> bool | None:
        """Whether the loss takes logit t for label t + 1; None: that is not told.

        Not while it may be either; and who says "labels" says what a batch weighs.
        """
        either = {self.unit, *self.live} & {"labels", "shifted_labels"}
        if not self.is_settled or len(either) != 1:
            return None
        is_found = bool(self.live) or self.is_defined
        return True if either == {"shifted_labels"} else False if is_found else None

    def on_scale(self, unit: str) -> float:
        """Return what puts an amount of ``unit``, or batches, on that of those before.

        Amounts of the first batch say it: it counts as much by any unit.
        """
        before = self.live.get(self.unit or "")
        now = 1.0 if unit == "batches" else self.live.get(unit)
        return self.scale * before / now if before and now else self.scale

    def settle_without_unit(self, counted: str | None = None) -> None:
        """Look at no batch any more: none tells a unit, or each says its weight.

        Args:
            counted: samples or batches, where none tells it.
        """
        is_first = self.batches <= 1 and not (self.has_waited or self.is_settled)
        self.scale = 1.0 if is_first or counted is None else self.on_scale(counted)
        self.is_settled, self.live, self.unit = True, {}, None

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON values."""
        return {
            "unit": self.unit,
            "live": dict(self.live),
            "r": self.rest,
            "scale": self.scale,
            "cuts": self.cuts,
            "batches": self.batches,
            "has_waited": self.has_waited,
            "is_settled": self.is_settled or self.expected is not None,
            "is_defined": self.is_defined,
            "later": self.later.number,
        }

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Told:
        """Return what ``settings`` has kept; its unit is to be compared."""
        unit = saved["unit"]
        return cls(
            unit=unit,
            live={str(name): float(n) for name, n in saved["live"].items()},
            rest=float(saved["r"]),
            scale=float(saved["scale"]),
            cuts=int(saved["cuts"]),
            batches=int(saved["batches"]),
            # Files of earlier releases do not say it.
            has_waited=saved.get("has_waited", bool(saved["live"]) > saved["batches"]),
            is_settled=saved["is_settled"] and unit is None,  # and stays so
            is_defined=saved.get("is_defined", False),
            expected=unit if saved["is_settled"] else None,
            later=LaterLooks(saved.get("later")),
        )
