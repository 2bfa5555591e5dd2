"""What readers of lines share: rows that stay in their file until they are needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from trainbus_data.rows.fingerprint import fingerprint_of
from trainbus_data.rows.held_lines import HeldLines
from trainbus_data.rows.line_index import LineIndex

__all__ = ["RowLines"]


class RowLines:
    """Rows by number, each one line of a file.

    Args:
        path: what the user named, for places.
        lines: the file's; of an index 8 bytes each are held.
        num_rows: rows; the lines behind them hold none.

    Attributes:
        root: folder of relative pictures.
        num_bytes: of all rows as text.
        faulty: numbers of rows that are known to be unusable, up to 1,000.
    """

    def __init__(self, path: Path, lines: LineIndex | HeldLines, num_rows: int) -> None:
        self.path = path
        self.root = path.parent
        self.faulty: tuple[int, ...] = ()
        self.num_bytes = lines.num_bytes
        self._lines = lines
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row.

        Raises:
            IndexError: there is none of that number.
            UnusableRow: why it is none, without its place.
        """
        raise NotImplementedError

    def place(self, index: int) -> str:
        """Return where a row was written, as in ``rows.jsonl:17``."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Tell these rows from others: a digest of up to 1,000, evenly spread."""
        return fingerprint_of(len(self), self.__getitem__)

    def _line(self, index: int) -> int:
        """Return the number of a row's line, from 0."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index % len(self)
