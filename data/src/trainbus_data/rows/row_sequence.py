"""Rows by number, as those who look at them have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from trainbus_data.rows.reading import Row

__all__ = ["ListedRows"]


class ListedRows(Sequence[dict[str, Any]]):
    """A list of rows as dicts, as ``IndexedRows`` has them: made as they are asked for.

    So whoever looks at rows can change none that is trained on, and to ask for the
    rows of a split copies none.

    Args:
        rows: are not copied.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [row.as_dict() for row in self._rows[index]]
        return self._rows[index].as_dict()
