"""What metrics call the kinds of rows that they are told by, and their floors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["floor_of", "slug"]

T = TypeVar("T")
#: Metrics that a floor of all rows, and of each kind, is in the unit of.
SHARES = ("accuracy", "exact_match")


def slug(kind: object) -> str:
    """Return a kind as metrics write it: ``"yes/no"`` is ``yes_no``."""
    return "".join(c if c.isalnum() else "_" for c in str(kind).strip()).lower()


def floor_of(metric: str, scores: Mapping[str, T]) -> T | None:
    """Return what ``scores`` has beside ``metric``: by its own name, else by its kind.

    Args:
        metric: a name in the run, such as ``accuracy/yes_no``.
        scores: of one that answers without looking: ``all``, kinds as metrics write
            them, and metrics, each with its value.
    """
    family, _, kind = metric.partition("/")
    of_kind = scores.get(kind or "all") if family in SHARES else None
    return scores.get(metric, of_kind)
