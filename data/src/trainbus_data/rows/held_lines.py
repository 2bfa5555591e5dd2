"""The lines of a file that is small enough to hold."""

from __future__ import annotations

from pathlib import Path

from trainbus_data.rows.json_lines import lines_of

__all__ = ["HeldLines"]


class HeldLines:
    """The lines of a file that are not blank, by number from 0; as ``LineIndex``.

    Args:
        path: UTF-8 or not; a byte order mark is left out.

    Attributes:
        num_bytes: of the lines.
    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._lines = list(lines_of(path))
        self.num_bytes = sum(len(raw) for _, raw in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def number_of(self, index: int) -> int:
        """Return the line's number in the file, from 1, every line counted."""
        return self._lines[index][0]

    def read(self, index: int) -> bytes:
        """Return the line."""
        return self._lines[index][1]
