"""The reader ``json``: a list of objects in one JSON document."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainbus_data.readers.derived import PicturePattern, with_turns
from trainbus_data.readers.json_items import JsonItems
from trainbus_data.readers.kept_rows import Item, KeptRows
from trainbus_data.rows.formats import KEYED, refuse_other_formats
from trainbus_data.rows.json_lines import UnusableRow
from training.files.named_paths import named_path

__all__ = ["JsonArray"]


class JsonArray(KeptRows):
    """The objects of a JSON list, as they are written.

    Chat data come as question and answer, see ``with_turns``.

    Args:
        path: UTF-8; a list of objects, or an object with such a list.
        key: the name of the list in an object; None: the file is the list.
        images: pattern over a row's values that gives its picture, such as
            ``val2014/COCO_val2014_{image_id:012d}.jpg``; None: rows have ``image``.
    Raises:
        DataError: the file cannot be read, is of another format, or holds no such list
            or no row.
        ConfigError: the pattern is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: str | None = None,
        images: str | None = None,
    ) -> None:
        path = named_path(path)
        pictures = PicturePattern(images)
        refuse_other_formats(path, "json" if key is None else KEYED)
        super().__init__(
            path,
            [path],
            {"reader": "json", "key": key, "images": images},
            lambda: _rows_of(path, key, pictures),
        )


def _rows_of(path: Path, key: str | None, pictures: PicturePattern) -> Iterator[Item]:
    for place, item in JsonItems(path, (key,)):
        row = item
        if isinstance(row, dict):
            try:
                row = pictures.add_to(with_turns(row))
            except UnusableRow as error:
                row = error
        yield place, row
