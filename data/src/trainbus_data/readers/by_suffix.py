"""Which reader reads a path that a configuration gives alone."""

from __future__ import annotations

from pathlib import Path

from trainbus_data.rows.formats import format_of

__all__ = ["reader_for"]

READERS = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "hf",
    ".arrow": "hf",
}


def reader_for(path: Path) -> str:
    """Return the name of the reader for a file, by its suffix, or for a folder.

    What stands in a ``.json`` file and in a folder is looked at: JSON lines are often
    called ``.json``. Other suffixes are taken for JSON lines.

    Raises:
        DataError: the path cannot be read.
    """
    if path.is_dir():
        found = format_of(path)
        return found.readers[0] if found else "folders"
    if path.suffix.lower() == ".json":
        found = format_of(path)
        is_document = found is not None and "vqa_v2" in found.readers
        return "json" if is_document else "jsonl"
    return READERS.get(path.suffix.lower(), "jsonl")
