"""Plain aligned text, and numbers in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["count", "number", "table"]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "<"
) -> list[str]:
    """Return aligned lines, the head first.

    Args:
        head: titles of the columns.
        rows: cells, as many as titles.
        align: ``<`` or ``>`` for each column; those not named go to the right.
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    sides = align.ljust(len(head), ">")
    return [
        "  ".join(
            f"{text:{side}{width}}"
            for text, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]


def count(number: int, thing: str) -> str:
    """Return ``"1 step"``, ``"1,200 steps"``, ``"2 batches"``, ``"2 entries"``."""
    things = thing[:-1] + "ies" if thing.endswith("ry") else f"{thing}s"
    things = f"{thing}es" if thing.endswith(("tch", "ss")) else things
    return f"{number:,} {thing if number == 1 else things}"


def number(value: Any) -> str:
    """Return a number for a cell; ``""`` for none.

    Four decimals tell at least four figures from 0.1 on, and are exact up to 1e15; else
    there are six figures.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 0.1 <= abs(value) < 1e15 or value == 0 else f"{value:.6g}"
