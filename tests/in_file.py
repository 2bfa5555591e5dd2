"""Rows of a JSON-lines file that stay in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainbus_data.readers.json_lines import JsonLines
from trainbus_data.rows.indexed_rows import IndexedRows
from trainbus_data.rows.row_checks import RowChecks
from trainbus_data.vqa.task import VQA


def index_rows(path: Path, **options: Any) -> IndexedRows:
    """Return the rows of a file of any size as those of a large one, as ``VQA``'s."""
    reader = JsonLines(path, index_above_mb=0)
    return IndexedRows(reader, RowChecks(VQA(), reader.root), **options)
