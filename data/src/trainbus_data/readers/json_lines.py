"""The reader ``jsonl``: one JSON object a line."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import Field

from trainbus_data.readers.derived import PicturePattern, with_turns
from trainbus_data.readers.row_lines import RowLines
from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.rows.held_lines import HeldLines
from trainbus_data.rows.json_lines import parse_object
from trainbus_data.rows.line_index import LineIndex
from training.errors import DataError
from training.files.named_paths import named_path

__all__ = ["JsonLines"]

MIB = 1 << 20


class JsonLines(RowLines):
    """The objects of a file of JSON lines, as they are written.

    Chat data come as question and answer, see ``with_turns``.

    Args:
        path: UTF-8, one JSON object a line; a byte order mark, CRLF and blank lines
            are accepted.
        images: pattern over a row's values that gives its picture, such as
            ``val2014/COCO_val2014_{image_id:012d}.jpg``; None: rows have ``image``.
        index_above_mb: MiB above which lines stay in the file, at 8 bytes of memory
            each, and are read as they are needed.
    Raises:
        DataError: the file cannot be read, is of another format, or holds no row.
        ConfigError: the pattern is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        images: str | None = None,
        index_above_mb: Annotated[int, Field(ge=0)] = 64,
    ) -> None:
        path = named_path(path)
        self._pictures = PicturePattern(images)
        refuse_other_formats(path, "jsonl")
        is_large = path.stat().st_size > index_above_mb * MIB
        lines = LineIndex(path) if is_large else HeldLines(path)
        if not len(lines):
            raise DataError(f"{path} holds no rows; each line should be a JSON object")
        super().__init__(path, lines, len(lines))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row, or raise as ``RowLines`` does."""
        values = parse_object(self._lines.read(self._line(index)), self.path)
        return self._pictures.add_to(with_turns(values))

    def place(self, index: int) -> str:
        """Return where a row was written, as in ``rows.jsonl:17``."""
        return f"{self.path}:{self._lines.number_of(self._line(index))}"
