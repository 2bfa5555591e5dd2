"""Which reader opens a split: the one that is named, or the one for the path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from trainbus_data.rows.formats import format_of
from training.discovery import installed
from training.discovery.parts import build_part, find_part, named_part
from training.discovery.signature import parameters_of
from training.documents.document import Key
from training.errors import DataError
from training.recipes.reader import Reader

__all__ = ["DEFAULT", "open_reader", "path_options", "reader_of"]

#: Suffix -> reader; whatever else a file is called, it is taken for JSON lines.
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "hf",
    ".arrow": "hf",
}
FOLDERS = "folders"
DEFAULT = "jsonl"


def reader_of(path: Path) -> str:
    """Return the name of the reader for a path.

    What stands in a ``.json`` file and in a folder is looked at: JSON lines are often
    called ``.json``, and folders hold pictures or what ``datasets`` saved.

    Raises:
        DataError: the path cannot be read.
    """
    name = SUFFIXES.get(path.suffix.lower(), DEFAULT)
    if path.is_dir():
        found = format_of(path)
        name = found.readers[0] if found else FOLDERS
    elif path.suffix.lower() == ".json":
        found = format_of(path)
        name = "json" if found and "vqa_v2" in found.readers else DEFAULT
    is_known = any(info.name == name for info in installed.installed("reader"))
    return name if is_known else DEFAULT


def open_reader(
    split: str,
    source: Path | Mapping[str, Any],
    settings: Mapping[str, Any],
    locate: Any,
    root: Path | None = None,
) -> Reader:
    """Return the reader of a split.

    Args:
        split: ``train``, ``validation`` or ``test``.
        source: a path, or one reader's name over its options.
        settings: of the section; a reader with an option of such a name gets it.
        locate: turns a path in the configuration into words, for messages.
        root: what relative paths among the options are relative to; ``source`` is
            below it already.
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
            raise DataError(how_to_get(split, source, root))
        name, options = reader_of(source), {"path": str(source)}
    cls = find_part("reader", name, locate(at))
    parameters = parameters_of(cls)
    if root is not None and isinstance(source, Mapping):
        paths = path_options(name, options, locate(at))
        options |= {key: str(root / path) for key, path in paths.items()}
    missing = {
        k: v for k, v in settings.items() if k in parameters and k not in options
    }
    reader: Reader = build_part(cls, {**options, **missing}, at, locate)
    return reader


def path_options(name: str, options: Mapping[str, Any], place: str) -> dict[str, Path]:
    """Return the options of a reader that are paths, ``~`` as the home folder.

    Args:
        name: of the reader.
        options: as they were written.
        place: where, for messages.
    """
    return {
        key: Path(os.path.expanduser(options[key]))
        for key, each in parameters_of(find_part("reader", name, place)).items()
        if isinstance(options.get(key), str) and _takes_path(each.annotation)
    }


def _takes_path(annotation: Any) -> bool:
    """Whether a parameter's annotation admits a path, as in ``str | Path``."""
    kinds = [get_origin(each) or each for each in (annotation, *get_args(annotation))]
    return any(
        isinstance(kind, type) and issubclass(kind, os.PathLike) for kind in kinds
    )


def how_to_get(split: str, path: Path, root: Path | None = None) -> str:
    """Return the error for a missing file, as it was written, with the way to it."""
    given = repr(str(path))
    if root is not None and path.is_relative_to(root):
        given = f"{str(path.relative_to(root))!r} (relative to data.root {str(root)!r})"
    problem = f"data.{split} is {given}, which is not a file here ({Path.cwd()})"
    if "easy_vqa" in str(path).lower().replace("-", "_"):
        return (
            f"{problem}; get the set with: git clone "
            "https://github.com/vzhou842/easy-VQA CLONE, then: trainbus data convert "
            f"easy-vqa CLONE {path.parent}"
        )
    return f"{problem}; correct the path, or data.root above it"
