"""Tell what a file or a folder of rows is, and which reader reads it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainbus_data.rows.json_lines import MAX_LINE_BYTES
from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.named_paths import open_file
from training.messages.error_texts import printable

__all__ = ["KEYED", "Format", "format_of", "reader_line", "refuse_other_formats"]

#: How much of a file is looked at.
NUM_BYTES = 4096
#: What a file begins with -> what it is, and the way out.
_UNREAD = {
    # By a pipe: by name they take files only that end as theirs do.
    b"\x1f\x8b": "is compressed with gzip; unpack it: gunzip < {name} > {new}",
    b"PK\x03\x04": "is a zip archive; unpack it: unzip {name}",
    b"BZh": "is compressed with bzip2; unpack it: bunzip2 < {name} > {new}",
    b"\xfd7zXZ\x00": "is compressed with xz; unpack it: unxz < {name} > {new}",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it: unzstd < {name} > {new}",
    b"\x80\x04": "is a Python pickle, which is not read; write it as JSON lines",
    b"version https://git-lfs": "is a Git LFS pointer to the file; run: git lfs pull",
    b"<": "is a web page or XML; look at what was downloaded",
    b"\x89PNG": "is a picture; name the file of rows, or the folder of classes",
    b"\xff\xd8\xff": "is a picture; name the file of rows, or the folder of classes",
}
_PACKED = frozenset({".gz", ".bz2", ".xz", ".zst"})
#: Of files that are archives inside.
_SHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods"})
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"[\x00", b"\x00[")
#: Names of columns; a line with two of them is a head.
_COLUMNS = frozenset(
    (
        "image",
        "image_id",
        "question",
        "question_id",
        "answer",
        "answers",
        "label",
        "caption",
        "text",
    )
)
#: Files that ``datasets`` saves, and those that describe the pictures beside them.
_SAVED = frozenset({"state.json", "dataset_dict.json"})
_METADATA = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
#: A list of objects under one of the names that the files of VQA v2 have; so has COCO,
#: whose annotations have no question_id.
_OFFICIAL = re.compile(r'"(questions|annotations)"\s*:\s*\[\s*(\{|$)')
#: An object over several lines.
_SPREAD = re.compile(r'\{\s*\n\s*"')
#: The reader ``json`` where its ``key`` is given.
KEYED = "json with a key"
_PICTURES = "FOLDER/{image_id:012d}.jpg"


class Format(NamedTuple):
    """What a file is.

    Attributes:
        what: goes on from its name, as in ``is one JSON array``.
        readers: those that read it, the usual one first; none: ``what`` tells the way.
        line: of configuration, that reads it, and what else may be done.
    """

    what: str
    readers: tuple[str, ...] = ()
    line: str = ""


def refuse_other_formats(path: Path, reader: str = "jsonl") -> None:
    """Refuse what as a whole is not for ``reader``, for what it seems to be.

    Otherwise each of its lines would be a bad row, for reasons that tell nothing.

    Raises:
        DataError: says what it is and the line of configuration that reads it, or that
            it cannot be read.
    """
    found = format_of(path)
    if found is not None and reader not in found.readers:
        way = f"; read it with {found.line}" if found.line else ""
        raise DataError(f"{path} {found.what}{way}")


def reader_line(reader: str, **options: Any) -> str:
    """Return what chooses a reader in a configuration, as one line of YAML."""
    pairs = (f"{name}: {_scalar(str(value))}" for name, value in options.items())
    return f"{{{reader}: {{{', '.join(pairs)}}}}}"


def format_of(path: Path) -> Format | None:
    """Return what a file or folder is, None if nothing speaks for a format.

    Raises:
        DataError: it cannot be read.
    """
    with or_data_error(path):
        if path.is_dir():
            return _of_folder(path)
        with open_file(path) as file:
            start = file.read(NUM_BYTES)
            if b"\n" not in start.strip():  # the line is needed whole
                start += file.readline(MAX_LINE_BYTES)
    return _of_file(path, start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n"))


def _of_folder(path: Path) -> Format:
    names = {entry.name for entry in path.iterdir()}
    through_hf = reader_line("hf", path=path)
    if names & _SAVED:
        return Format("is a folder that datasets saved", ("hf",), through_hf)
    if names & _METADATA:
        return Format("is a folder of pictures with metadata", ("hf",), through_hf)
    if any(name.endswith((".parquet", ".arrow")) for name in names):
        return Format("is a folder of Parquet or Arrow files", ("hf",), through_hf)
    return Format("is a folder", ("folders",), reader_line("folders", path=path))


def _of_file(path: Path, start: bytes) -> Format | None:
    """Return what a file is whose content begins like this."""
    if path.suffix.lower() in _SHEETS:
        return Format("is a spreadsheet; save its rows as CSV")
    for magic, words in _UNREAD.items():
        if start.startswith(magic):
            plain = path.stem if path.suffix in _PACKED else f"unpacked-{path.name}"
            names = {"name": shlex.quote(path.name), "new": shlex.quote(plain)}
            return Format(words.format(**names))
    if start.startswith(_UTF_16):
        to = f"iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}"
        return Format(f"is UTF-16 text; write it as UTF-8: {to}")
    if start.startswith((b"PAR1", b"ARROW1")):
        what = "a Parquet file" if start.startswith(b"PAR1") else "an Arrow file"
        return Format(f"is {what}", ("hf",), reader_line("hf", path=path))
    text = start.decode("utf-8", errors="replace")
    if text.startswith("["):
        line = reader_line("json", path=path)
        return Format("is one JSON array", ("json", "vqa_v2", KEYED), line)
    return _of_object(path, text) if text.startswith("{") else _of_table(path, text)


def _of_object(path: Path, text: str) -> Format | None:
    first, _, rest = text.partition("\n")
    row = _parsed(first)
    if row is not None and rest.strip():
        line = reader_line("jsonl", path=path)
        return Format("is JSON lines, one object a line", ("jsonl",), line)
    found = _OFFICIAL.search(text)
    if found and found[1] == "annotations" and '"question_id"' not in text:
        line = reader_line("json", path=path, key=found[1], images=_PICTURES)
        what = "is one JSON object with annotations, as those of COCO"
        return Format(what, (KEYED, "vqa_v2"), line)
    if found:
        files = {"questions": "FILE", "annotations": "FILE", found[1]: path}
        line = reader_line("vqa_v2", **files, images=_PICTURES)
        what = f"is one JSON object, the {found[1]} of VQA v2 or of a set in its form"
        return Format(what, ("vqa_v2", KEYED), line)
    line = reader_line("json", path=path, key="NAME_OF_THE_LIST")
    if _SPREAD.match(text):
        line += f", or write each row on one line: jq -c . {path.name} > rows.jsonl"
        return Format("is JSON spread over several lines", (KEYED, "vqa_v2"), line)
    if len(first) > MAX_LINE_BYTES:
        return Format("is one JSON object", (KEYED, "vqa_v2"), line)
    if row is not None and _holds_rows(row):  # or is one row that holds a list
        return Format("is one JSON object", (KEYED, "vqa_v2", "jsonl"), line)
    return None


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _holds_rows(row: Mapping[str, Any]) -> bool:
    """Whether an object has no value of a row, but a list of objects."""
    lists = [value for value in row.values() if isinstance(value, list) and value]
    return not _COLUMNS & row.keys() and any(isinstance(v[0], dict) for v in lists)


def _of_table(path: Path, text: str) -> Format | None:
    """Return whether the first lines are cells, as many in each, behind a head."""
    lines = [line for line in text.split("\n")[:3] if line.strip()]
    for separator in "\t,;|" if lines else "":
        cells = {cell.strip(" \r\"'").lower() for cell in lines[0].split(separator)}
        counts = {line.count(separator) for line in lines[:2]}
        if len(cells & _COLUMNS) > 1 or (
            len(lines) > 1 and len(counts) == 1 and 0 not in counts
        ):
            usual = "\t" if path.suffix == ".tsv" else ","
            options = {} if separator == usual else {"separator": separator}
            line = reader_line("csv", path=path, **options)
            return Format(
                f"is a table whose cells are separated by {separator!r}",
                ("csv",),
                line,
            )
    return None


def _scalar(text: str) -> str:
    """Return a text as YAML has it, in quotes where it must be."""
    if re.fullmatch(r"[\w/.-]*[\w/-]", text):
        return text
    # YAML does not take JSON's two halves of a character beyond 16 bits.
    return printable(json.dumps(text, ensure_ascii=False))
