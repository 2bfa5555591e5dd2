"""JSON lines read strictly: what a line is, and what an object in it may hold."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.named_paths import open_file
from training.messages.error_texts import printable

__all__ = [
    "UnusableRow",
    "lines_of",
    "not_utf_8",
    "parse_object",
    "refuse_constant",
    "show",
    "unique_pairs",
]

MAX_LINE_BYTES = 1 << 20


class UnusableRow(DataError):
    """Why a row cannot be used, without its place."""


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield (number from 1, content) of the lines that are not blank.

    Only ``\n`` ends a line: U+2028 inside a string is text, unlike in splitlines().
    """
    with or_data_error(path):
        file = open_file(path)
    with file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            rest = raw
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES + 1)  # drop the rest, unread
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield number, raw


def not_utf_8(error: UnicodeDecodeError, path: Path, of: str = "") -> str:
    """Return where bytes are no UTF-8, and what writes the file anew.

    Args:
        error: of the bytes.
        path: of the file.
        of: what they are bytes of, where that is not the line that the place names.
    """
    name, new = shlex.quote(path.name), shlex.quote(f"utf8{path.suffix}")
    return (
        f"is not UTF-8 at byte {error.start + 1}{of}; write the file as UTF-8, as in: "
        f"iconv -f LATIN1 -t UTF-8 {name} > {new}"
    )


def parse_object(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object of one line of the file ``path``."""
    if len(raw) > MAX_LINE_BYTES:
        raise UnusableRow(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableRow(not_utf_8(error, path)) from error
    try:
        values = json.loads(
            text, parse_constant=refuse_constant, object_pairs_hook=unique_pairs
        )
    except UnusableRow:
        raise
    except json.JSONDecodeError as error:
        end = "; the line seems cut off" if not raw.rstrip().endswith(b"}") else ""
        column = min(error.pos, len(text.rstrip())) + 1  # not on the line behind it
        if error.msg.startswith("Extra data"):
            end = "; remove what follows there, such as a comma"
        raise UnusableRow(
            f"is not JSON: {said_of(error)} at column {column}{end}"
        ) from error
    except RecursionError as error:
        raise UnusableRow("is nested too deeply") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise UnusableRow(f"is not JSON that can be read: {error}") from error
    if not isinstance(values, dict):
        raise UnusableRow(f"is {show(values)}; write a JSON object")
    return values


def refuse_constant(literal: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser would take."""
    raise UnusableRow(f"holds {literal}, which is not JSON")


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, which must not have a key twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnusableRow(f"has the key {twice!r} twice")
    return values


def said_of(error: json.JSONDecodeError) -> str:
    """Return what is wrong, without the place, which some messages lead up to."""
    return error.msg.removesuffix(" at")


def show(value: Any) -> str:
    """Return a value as a person would write it, cut at 40 characters."""
    if isinstance(value, str):
        text = repr(value)
    else:  # Parquet holds bytes, dates and decimals, too
        text = printable(json.dumps(value, ensure_ascii=False, default=repr))
    kinds = {"dict": "an object", "list": "a list", "str": "a string"}
    kind = kinds.get(type(value).__name__)
    text = text if len(text) <= 40 else text[:37] + "..."
    return f"{text} ({kind})" if kind else text
