"""Warnings that each evaluator gives once."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class WarnOnce:
    """Warns, and is silent when it is called with the same text again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, text: str, *values: object) -> None:
        """Warn of ``text``, with ``values`` in it; these may differ the next time."""
        if text not in self._told:
            self._told.add(text)
            logger.warning(text, *values)
