"""Some rows of a file that is too large to hold: drawn by chance, and every target."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainbus_data.rows.indexed_rows import IndexedRows
from trainbus_data.rows.reading import Row
from trainbus_data.rows.row_sequence import RowSequence

__all__ = ["SampledRows"]

Numbers = npt.NDArray[np.int64]


class SampledRows(RowSequence):
    """Rows drawn by chance, always the same, and the first of each target, in order.

    Which they are is looked up when they are first asked for. Of more than ``most``
    rows the targets are all read then: 6 us a row, 60 bytes of memory a target. Where
    they are more than ``most`` themselves, as captions are, none is added.

    Args:
        rows: all.
        most: rows that are drawn; the rows of further targets come on top.
        target: the field of which no value may be missed; None: any may.
    """

    def __init__(self, rows: IndexedRows, most: int, target: str | None = None) -> None:
        self._rows = rows
        self._most = most
        self._target = target

    def __len__(self) -> int:
        return len(self._numbers)

    def row(self, index: int) -> Row:
        """Return one row, or raise as ``RowSequence`` does."""
        return self._rows.row(int(self._numbers[index]))

    @cached_property
    def _numbers(self) -> Numbers:
        if len(self._rows) <= self._most:
            return np.arange(len(self._rows))
        # No even steps: rows that take turns would be missed again and again.
        drawn = np.random.default_rng(0).choice(
            len(self._rows), self._most, replace=False
        )
        if self._target is None:
            return np.sort(drawn)
        first = _first_of_each(self._rows.values_of(self._target), self._most)
        return np.union1d(drawn, first)


def _first_of_each(values: Iterable[Any], most: int) -> list[int]:
    """Return the first places of each value; none of more than ``most``, as texts."""
    seen: set[int] = set()
    first = []
    for number, value in enumerate(values):
        digest = hash(str(value))  # 8 bytes, however long the text
        if digest not in seen:
            seen.add(digest)
            first.append(number)
            if len(first) > most:  # no names to choose from, but texts of their own
                return []
    return first
