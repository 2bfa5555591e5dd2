"""Rows that stay in their file, for data sets too large to hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.rows.json_lines import UnusableRow
from trainbus_data.rows.line_index import LineIndex
from trainbus_data.rows.reading import BadRow, Row, RowReader, settle_bad_rows
from training.errors import DataError

__all__ = ["IndexedRows"]

#: Rows that are checked before training, from the start of the file.
NUM_CHECKED = 2000


class IndexedRows(Sequence[dict[str, Any]]):
    """The rows of a JSON-lines file, each read and checked when it is asked for.

    Holds 8 bytes a row. The first 2,000 rows are checked at once, and all of them with
    ``on_bad_row="skip"`` (about 10 us a row), so that the number of rows is known.
    Unlike in a list, a ``question_id`` that is given twice is not noticed.

    Args:
        path: UTF-8, one JSON object a line; blank lines are left out.
        root: folder that no image may lie outside; by default the file's own.
        on_bad_row: ``"error"`` raises where a bad row is met; ``"skip"`` leaves bad
            rows out from the start.
        max_bad_fraction: share of bad rows that ``"skip"`` bears, in [0, 1].
    Raises:
        DataError: the file cannot be read, is of another format, holds no row, or a row
            that was checked cannot be used.
    """

    def __init__(
        self,
        path: Path,
        root: Path | None = None,
        on_bad_row: Literal["error", "skip"] = "error",
        max_bad_fraction: float = 0.0,
    ) -> None:
        self.path = path
        refuse_other_formats(path)
        self._index = LineIndex(path)
        if not len(self._index):
            raise DataError(f"{path} holds no rows; each line should be a JSON object")
        self._reader = RowReader(path, root, is_whole_file=False)
        number = len(self._index) if on_bad_row == "skip" else NUM_CHECKED
        self._check(min(number, len(self._index)), on_bad_row, max_bad_fraction)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self.row(index).as_dict()

    def row(self, index: int) -> Row:
        """Return one row.

        Raises:
            IndexError: there is no such row.
            DataError: it cannot be used; names file, line and reason.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        line = self._index.number_of(index)
        try:
            return self._reader.read(line, self._index.read(index))
        except UnusableRow as error:
            raise DataError(f"{BadRow(self.path, line, str(error))}") from error

    def _check(
        self, number: int, on_bad_row: Literal["error", "skip"], most: float
    ) -> None:
        """Read the first rows, and leave out the bad ones where that is the policy."""
        is_good = np.ones(len(self), dtype=np.bool_)
        bad = []
        for index in range(number):
            line = self._index.number_of(index)
            try:
                self._reader.read(line, self._index.read(index))
            except UnusableRow as error:
                bad.append(BadRow(self.path, line, str(error)))
                is_good[index] = False
        settle_bad_rows(bad, number, on_bad_row, most)
        if bad:
            self._index.keep(is_good)
