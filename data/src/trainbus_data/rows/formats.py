"""Tell a file of JSON lines from other files that people take for one."""

from __future__ import annotations

import re
from pathlib import Path

from training.errors import DataError

__all__ = ["refuse_other_formats"]

#: How much of a file is looked at.
NUM_BYTES = 4096
#: What a file begins with -> what it is, and the way out.
_MAGIC = {
    b"\x1f\x8b": "is compressed with gzip; unpack it: gunzip -k {name}",
    b"PK\x03\x04": "is a zip archive; unpack it: unzip {name}",
    b"BZh": "is compressed with bzip2; unpack it: bunzip2 -k {name}",
    b"\xfd7zXZ\x00": "is compressed with xz; unpack it: unxz -k {name}",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it: unzstd {name}",
    b"PAR1": "is a Parquet file; write it as JSON lines, one object a line",
    b"ARROW1": "is an Arrow file; write it as JSON lines, one object a line",
    b"\x80\x04": "is a Python pickle, which is not read; write it as JSON lines",
    b"version https://git-lfs": "is a Git LFS pointer to the file; run: git lfs pull",
    b"<": "is a web page or XML; look at what was downloaded",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{", b"[\x00", b"\x00[")
_COLUMNS = {"image", "question", "answer"}


def refuse_other_formats(path: Path) -> None:
    """Refuse a file that as a whole is no JSON lines, for what it seems to be.

    Otherwise each of its lines would be a bad row, for reasons that tell nothing.

    Raises:
        DataError: says what the file is and how to make JSON lines of it, or that it
            cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(NUM_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    found = _seems(start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n"))
    if found:
        raise DataError(f"{path} {found.format(name=path.name)}")


def _seems(start: bytes) -> str:
    """Return what content that begins like this is, ``""`` for JSON lines."""
    for magic, words in _MAGIC.items():
        if start.startswith(magic):
            return words
    if start.startswith(_UTF_16):
        return (
            "is UTF-16 text; write it as UTF-8: "
            "iconv -f UTF-16 -t UTF-8 {name} > utf8.jsonl"
        )
    if start.startswith(b"["):
        return (
            "is one JSON array, and no JSON lines; write each of its objects on a line "
            "of its own: jq -c '.[]' {name} > rows.jsonl"
        )
    if re.match(rb'\{\s*\n\s*"', start):
        return (
            "is JSON spread over several lines; write each row's object on one line: "
            "jq -c . {name} > rows.jsonl"
        )
    text = start.partition(b"\n")[0].decode("utf-8", errors="replace").strip()
    for separator in "\t,;|":
        cells = {cell.strip(" \"'").lower() for cell in text.split(separator)}
        if not text.startswith("{") and len(cells & _COLUMNS) > 1:
            return (
                f"is a table whose cells are separated by {separator!r}; write each "
                "row as a JSON object on a line of its own"
            )
    holds_lists = re.match(r'\{\s*"(info|annotations|questions|images)"\s*:', text)
    if holds_lists and '"image"' not in text:
        return (
            "is one JSON object that holds lists, as the official files do; join them "
            "to rows of 'image', 'question' and 'answer', one object a line"
        )
    return ""
