"""The reader ``jsonl``: one JSON object a line."""

from __future__ import annotations

import os
from typing import Any

from trainbus_data.readers.derived import PicturePattern, with_turns
from trainbus_data.readers.row_lines import RowLines
from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.rows.json_lines import parse_object
from trainbus_data.rows.line_index import LineIndex
from training.errors import DataError
from training.files.named_paths import named_path

__all__ = ["JsonLines"]


class JsonLines(RowLines):
    """The objects of a file of JSON lines, as they are written.

    Chat data come as question and answer, see ``with_turns``.

    Args:
        path: UTF-8, one JSON object a line; blank lines are left out.
        images: pattern over a row's values that gives its picture, such as
            ``val2014/COCO_val2014_{image_id:012d}.jpg``; None: rows have ``image``.
    Raises:
        DataError: the file cannot be read, is of another format, or holds no row.
        ConfigError: the pattern is none.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, images: str | None = None
    ) -> None:
        path = named_path(path)
        self._pictures = PicturePattern(images)
        refuse_other_formats(path, "jsonl")
        index = LineIndex(path)
        if not len(index):
            raise DataError(f"{path} holds no rows; each line should be a JSON object")
        super().__init__(path, index, len(index))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row, or raise as ``RowLines`` does."""
        values = parse_object(self._index.read(self._line(index)))
        return self._pictures.add_to(with_turns(values))

    def place(self, index: int) -> str:
        """Return where a row was written, as in ``rows.jsonl:17``."""
        return f"{self.path}:{self._index.number_of(self._line(index))}"
