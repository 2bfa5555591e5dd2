"""What readers of lines share: rows that stay in their file until they are needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from trainbus_data.rows.held_lines import HeldLines
from trainbus_data.rows.json_lines import UnusableRow
from trainbus_data.rows.line_index import LineIndex

__all__ = ["RowLines", "fingerprint_of"]

#: Rows, or up to twice as many, that tell one data set from another.
NUM_LOOKED_AT = 1000


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
        return fingerprint_of(self)

    def _line(self, index: int) -> int:
        """Return the number of a row's line, from 0."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index % len(self)


class _Rows(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def fingerprint_of(rows: _Rows) -> str:
    """Return a digest of up to 1,000 rows, evenly spread; pictures are not opened."""
    digest = hashlib.sha256(str(len(rows)).encode())
    for index in range(0, len(rows), max(1, len(rows) // NUM_LOOKED_AT)):
        try:
            row = json.dumps(rows[index], sort_keys=True, default=repr)
        except UnusableRow as error:  # whoever asks for it will be told
            row = str(error)
        digest.update(row.encode())
    return digest.hexdigest()[:16]
