"""What is evaluated before any batch was trained on weighs what it tells itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from training.weighing import sentences
from training.weighing.candidates import Contents
from training.weighing.units import OF_LABELS, in_words

if TYPE_CHECKING:
    from training.weighing.subject import Look

log = logging.getLogger("training.weighing")


class Untrained:
    """Weighs batches that are evaluated before any was trained on, each by itself."""

    def __init__(self) -> None:
        self._unit: str | None = None  # that the batch before was counted by

    def weight(self, batch: Contents, look: Callable[[Contents], Look]) -> float:
        """Return what ``batch`` counts; one that tells nothing, as that before it.

        Args:
            batch: what is evaluated.
            look: returns what it tells.
        Raises:
            DataError: those before it told a unit that it does not tell.
        """
        before, unit = self._unit, batch.defined()
        if unit is None:
            seen = look(batch)
            if seen.said is not None:
                return 1.0  # step_fn says it for the batch itself
            if seen.is_over_nothing(OF_LABELS, batch.present(OF_LABELS)):
                return 0.0
            counted = "batches" if batch("samples") is None else "samples"
            live = seen.live or [before or counted]
            unit = before if before in live else live[0]
        if before not in (None, unit):
            why = sentences.mixed(unit, str(before))
            log.warning("%s", sentences.aside(in_words(unit), why))
        self._unit = unit
        return 1.0 if unit == "batches" else batch.needed(unit)
