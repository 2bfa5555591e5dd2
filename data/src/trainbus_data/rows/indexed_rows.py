"""Rows that stay where they are, for data sets too large to hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trainbus_data.rows.reading import BadRow, Row, read_row, settle_bad_rows
from trainbus_data.rows.row_checks import RowChecks
from trainbus_data.rows.row_sequence import RowSequence
from training.errors import DataError
from training.recipes.reader import Reader

__all__ = ["HELD_MB", "IndexedRows", "is_large"]

#: Rows that are checked before training, from the start.
NUM_CHECKED = 2000
#: MiB of rows that are held in memory unless a configuration says otherwise.
HELD_MB = 64
#: Bytes that a row is taken to have where its reader does not tell.
ROW_BYTES = 512


class IndexedRows(RowSequence):
    """The rows of a reader, each read and checked when it is asked for.

    The first 2,000 rows are checked at once, and all of them with
    ``on_bad_row="skip"`` (about 10 us a row), so that the number of rows is known.
    Unlike in a list, an id that is given twice is not noticed.

    Args:
        reader: where they lie.
        checks: what makes them rows of a task.
        on_bad_row: ``"error"`` raises where a bad row is met; ``"skip"`` leaves bad
            rows out from the start.
        max_bad_fraction: share of bad rows that ``"skip"`` bears, in [0, 1].
    Raises:
        DataError: a row that was checked cannot be used.
    """

    def __init__(
        self,
        reader: Reader,
        checks: RowChecks,
        on_bad_row: Literal["error", "skip"] = "error",
        max_bad_fraction: float = 0.0,
    ) -> None:
        self._reader = reader
        self._checks = checks
        #: Numbers of the rows that are left, 8 bytes each; None: all are.
        self._left: npt.NDArray[np.int64] | None = None
        number = len(reader) if on_bad_row == "skip" else NUM_CHECKED
        self._check(min(number, len(reader)), on_bad_row, max_bad_fraction)

    def __len__(self) -> int:
        return len(self._reader) if self._left is None else len(self._left)

    def row(self, index: int) -> Row:
        """Return one row, or raise as ``RowSequence`` does."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        number = index if self._left is None else int(self._left[index])
        row = read_row(self._reader, self._checks, number)
        if isinstance(row, BadRow):
            raise DataError(str(row))
        return row

    def values_of(self, field: str) -> Iterator[Any]:
        """Yield what each row has for one field, as it is written and unchecked.

        None stands for what is missing, and for a row that cannot be read.
        """
        name = self._checks.name_of(field)
        column = getattr(self._reader, "column", None)
        values = self._read_each(name) if column is None else column(name)
        if self._left is None:
            yield from values
        else:
            is_left = np.zeros(len(self._reader), dtype=np.bool_)
            is_left[self._left] = True
            yield from compress(values, is_left)

    def _read_each(self, name: str) -> Iterator[Any]:
        for number in range(len(self._reader)):
            try:
                yield self._reader[number].get(name)
            except DataError:  # told, with its place, to whoever asks for the row
                yield None

    def _check(
        self, number: int, on_bad_row: Literal["error", "skip"], most: float
    ) -> None:
        """Read the first rows, and leave out the bad ones where that is the policy."""
        is_good = np.ones(len(self._reader), dtype=np.bool_)
        bad = []
        known = (n for n in getattr(self._reader, "faulty", ()) if n >= number)
        for index in (*range(number), *known):
            row = read_row(self._reader, self._checks, index)
            if isinstance(row, BadRow):
                bad.append(row)
                is_good[index] = False
        settle_bad_rows(bad, number, on_bad_row, most)
        if bad:
            self._left = np.flatnonzero(is_good)


def is_large(reader: Reader, above_mb: int = HELD_MB) -> bool:
    """Whether the rows of a reader, as text, are more than so many MiB."""
    size = getattr(reader, "num_bytes", len(reader) * ROW_BYTES)
    return bool(size > above_mb << 20)
