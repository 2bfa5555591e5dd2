"""Find the folder that holds rows and all their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainbus_data.readers.choose import open_reader, path_options
from trainbus_data.rows.indexed_rows import is_large
from trainbus_data.rows.json_lines import UnusableRow
from training.discovery.parts import named_part
from training.documents.document import dotted
from training.recipes.reader import Reader

__all__ = ["below", "common_root"]

#: Rows of a large file that are looked at, evenly spread.
NUM_SPREAD = 100_000


def common_root(
    splits: Mapping[str, Path | Mapping[str, Any]], kinds: Mapping[str, str]
) -> Path | None:
    """Return the folder that holds all rows and their pictures.

    None where each picture lies below the folder of the file that names it: then a run
    need not be told of another.

    Args:
        splits: split -> its file or folder, or a reader's name over its options.
        kinds: column -> the kind of what it holds, as a task says it.
    Raises:
        DataError: a file cannot be read.
    """
    columns = [each for each, kind in kinds.items() if kind.startswith("picture")]
    is_outside = False
    folders: set[str] = set()
    for split, source in splits.items():
        reader = open_reader(split, source, {}, dotted)
        own = os.path.realpath(reader.root)
        pictures = {os.path.realpath(path) for path in _pictures(reader, columns)}
        is_outside |= any(os.path.commonpath([own, path]) != own for path in pictures)
        folders |= {own, *map(os.path.dirname, pictures)}
        named = [source] if isinstance(source, Path) else _paths(source).values()
        folders |= {str(_real(path).parent) for path in named}
    return Path(os.path.commonpath(folders)) if is_outside else None


def below(
    source: Path | Mapping[str, Any], root: Path
) -> Path | dict[str, dict[str, Any]]:
    """Return what reads ``source`` where its paths are relative to ``root``."""
    if isinstance(source, Path):
        return _real(source).relative_to(root)
    name, options = named_part(source, "the rows")
    paths = {k: str(_real(p).relative_to(root)) for k, p in _paths(source).items()}
    return {name: {**options, **paths}}


def _pictures(reader: Reader, columns: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the pictures that rows name, each text once."""
    seen: set[str] = set()
    step = -(-len(reader) // NUM_SPREAD) if is_large(reader) else 1
    for index in range(0, len(reader), step):
        with suppress(UnusableRow):  # which a plan tells of
            row = reader[index]
            named = (row.get(column) for column in columns)
            seen |= {text.strip() for text in named if isinstance(text, str)}
    for text in seen:
        if "\0" not in text:  # no path
            yield os.path.join(reader.root, text)


def _paths(source: Mapping[str, Any]) -> dict[str, Path]:
    name, options = named_part(source, "the rows")
    return path_options(name, options, "the rows")


def _real(path: Path) -> Path:
    """Return the real folder, or the file in its real folder.

    A link to a file counts as where it lies: pictures are relative to that.
    """
    if path.is_dir():
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)
