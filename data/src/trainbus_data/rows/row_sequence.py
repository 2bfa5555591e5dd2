"""Rows by number, as those who look at them have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from trainbus_data.rows.reading import Row

__all__ = ["ListedRows", "RowSequence"]


class RowSequence(Sequence[dict[str, Any]]):
    """Rows as dicts, each made as it is asked for.

    So whoever looks at rows can change none that is trained on, and to ask for the
    rows of a split copies none.
    """

    def row(self, index: int) -> Row:
        """Return one row, with its place.

        Raises:
            IndexError: there is no such row.
            DataError: it cannot be used; names its place and the reason.
        """
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self.row(index).as_dict()


class ListedRows(RowSequence):
    """Rows that are held in memory.

    Args:
        rows: are not copied.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        """Return one row, or raise IndexError."""
        return self.rows[index]
