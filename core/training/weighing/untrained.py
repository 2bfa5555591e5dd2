"""What is evaluated before any batch was trained on weighs what it tells itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.weighing import sentences
from training.weighing.candidates import Counts, needed
from training.weighing.units import OF_LABELS, in_words

if TYPE_CHECKING:
    from training.weighing.subject import Look

log = logging.getLogger("training.weighing")


class Untrained:
    """Weighs what is evaluated before any batch was trained on, each batch by itself.

    Args:
        counts: counts units.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._unit: str | None = None  # that the batch before was counted by

    def weight(
        self, batch: Any, samples: int | None, look: Callable[[], Look]
    ) -> float:
        """Return what ``batch`` counts; one that tells nothing, as that before it.

        Args:
            batch: on the host.
            samples: in it, where that is known.
            look: returns what it tells.
        Raises:
            DataError: those before it told a unit that it does not tell.
        """
        before, unit = self._unit, self._counts.defined(batch)
        if unit is None:
            seen = look()
            if seen.said is not None:
                return 1.0  # step_fn says it for the batch itself
            there = self._counts.present(OF_LABELS, batch, samples)
            if seen.is_over_nothing(OF_LABELS, there):
                return 0.0
            is_known = self._counts("samples", batch, samples) is not None
            counted = "samples" if is_known else "batches"
            live = seen.live or [before or counted]
            unit = before if before in live else live[0]
        if before not in (None, unit):
            why = sentences.mixed(unit, str(before))
            log.warning("%s", sentences.aside(in_words(unit), why))
        self._unit = unit
        if unit == "batches":
            return 1.0
        return needed(self._counts(unit, batch, samples), unit, batch)
