"""Which reader opens a split: the one that is named, or the one of the suffix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.discovery import installed
from training.discovery.parts import build_part, find_part, named_part
from training.discovery.signature import parameters_of
from training.documents.document import Key
from training.errors import DataError
from training.recipes.reader import Reader

__all__ = ["DEFAULT", "open_reader", "reader_of"]

#: Suffix -> reader; whatever else a file is called, it is taken for JSON lines.
SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "hf",
}
FOLDERS = "folders"
DEFAULT = "jsonl"


def reader_of(path: Path) -> str:
    """Return the name of the reader for a path."""
    name = FOLDERS if path.is_dir() else SUFFIXES.get(path.suffix.lower(), DEFAULT)
    is_known = any(info.name == name for info in installed.installed("reader"))
    return name if is_known else DEFAULT


def open_reader(
    split: str,
    source: Path | Mapping[str, Any],
    settings: Mapping[str, Any],
    locate: Any,
) -> Reader:
    """Return the reader of a split.

    Args:
        split: ``train``, ``validation`` or ``test``.
        source: a path, or one reader's name over its options.
        settings: of the section; a reader with an option of such a name gets it.
        locate: turns a path in the configuration into words, for messages.
    Raises:
        PluginError: the reader or an option is unknown, or does not fit.
        DataError: there is nothing to read, or not in that form.
    """
    at: Key = ("data", split)
    if isinstance(source, Mapping):
        name, options = named_part(source, locate(at))
        at = (*at, name)
    else:
        if not source.exists():
            raise DataError(how_to_get(split, source))
        name, options = reader_of(source), {"path": str(source)}
    cls = find_part("reader", name, locate(at))
    parameters = parameters_of(cls)
    missing = {
        k: v for k, v in settings.items() if k in parameters and k not in options
    }
    reader: Reader = build_part(cls, {**options, **missing}, at, locate)
    return reader


def how_to_get(split: str, path: Path) -> str:
    """Return the error for a missing file, with the way to it."""
    problem = f"data.{split} is {str(path)!r}, which is not a file here ({Path.cwd()})"
    if "easy_vqa" in str(path).lower().replace("-", "_"):
        return (
            f"{problem}; get the set with: git clone "
            "https://github.com/vzhou842/easy-VQA CLONE, then: trainbus data convert "
            f"easy-vqa CLONE {path.parent}"
        )
    return f"{problem}; correct the path, or data.root above it"
