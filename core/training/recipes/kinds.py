"""What metrics call the kinds of rows that they are told by, and their floors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["floor_of", "slug"]

T = TypeVar("T")
#: Metrics that a floor of all rows, and of each kind, is in the unit of.
SHARES = ("accuracy", "exact_match")


def slug(kind: object) -> str:
    """Return a kind as metrics write it: ``"yes/no"`` is ``yes_no``.

    Who measures by kind, tells floors or plans a run calls it so: else a floor is of no
    metric.
    """
    return "".join(c if c.isalnum() else "_" for c in str(kind).strip()).lower()


def floor_of(metric: str, scores: Mapping[str, T]) -> T | None:
    """Return what ``scores`` has beside ``metric``: by its own name, else by its kind.

    ``all`` is of all rows, and never a kind that is called so.

    Args:
        metric: a name in the run, such as ``accuracy/yes_no``.
        scores: of one that answers without looking: ``all``, metrics, and kinds, each
            with its value.
    """
    family, _, kind = metric.partition("/")
    if metric in scores or family not in SHARES:
        return scores.get(metric)
    if not kind:
        return scores.get("all")
    named = (value for name, value in scores.items() if name != "all"
             and slug(name) == kind)  # fmt: skip
    return next(named, None)
