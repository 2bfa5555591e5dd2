"""The items of a list in a JSON file, one after another, each with its place.

The file's text is held while it is read, but never more than one of its items. Items
are parsed by ``json``; here is only what lies between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainbus_data.rows.json_lines import (
    UnusableRow,
    not_utf_8,
    refuse_constant,
    said_of,
    show,
    unique_pairs,
)
from trainbus_data.unreadable import or_data_error
from training.errors import DataError, did_you_mean
from training.files.named_paths import open_file

__all__ = ["JsonItems"]

_BLANKS = re.compile(r"[ \t\r\n]*")


class JsonItems:
    """The items of one list: of the whole file, or under a key of its object.

    Iterating gives (place, item): the place is the line, and of an item that does not
    begin its line also its number from 1, as in ``1#17``; the item is an object, or
    ``UnusableRow`` with the reason why it is none.

    Args:
        path: UTF-8, with or without a byte order mark.
        keys: names of the list, of which the first found is taken; None among them: the
            file itself may be the list.
        refuses_twins: an object with a key twice is no item; takes about 1 us for each
            object inside of an item.
    Raises:
        DataError: the file cannot be read, is no JSON, or holds no such list; also
            while iterating.
    """

    def __init__(
        self, path: Path, keys: tuple[str | None, ...], refuses_twins: bool = True
    ) -> None:
        self.path = path
        self._text = _text_of(path)
        self._strict = json.JSONDecoder(
            parse_constant=refuse_constant,
            object_pairs_hook=unique_pairs if refuses_twins else None,
        )
        self._lenient = json.JSONDecoder()
        self._line, self._counted_to, self._line_start = 1, 0, 0
        self._is_inside = False  # an object
        self._start = self._find(keys)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any] | UnusableRow]]:
        at = self._skip(self._start + 1)
        number = 0
        while self._text[at : at + 1] != "]":
            number += 1
            place = self._place(at, number)
            item, end = self._item(at)
            yield place, item
            at = self._next(end, "]")
        if self._is_inside:  # what is cut off behind the list is cut off, too
            for _ in self._members(self._next(at + 1, "}")):
                pass
        else:
            self._refuse_more(at + 1)

    def place(self, at: int) -> str:
        """Return ``path:line`` of a place in the text."""
        return f"{self.path}:{self._text.count(chr(10), 0, at) + 1}"

    def _find(self, keys: tuple[str | None, ...]) -> int:
        """Return where the list begins."""
        at = self._skip(0)
        opening = self._text[at : at + 1]
        if opening == "[":
            if None in keys:
                return at
            raise DataError(f"{self.path} is a list, and no object with {_any(keys)}")
        if opening != "{":
            found = show(self._value(at, self._lenient)[0])
            raise DataError(f"{self.place(at)}: is {found}; write a list of rows")
        lists: list[str] = []
        for name, start in self._members(at + 1):
            if name in keys and self._text[start : start + 1] == "[":
                self._is_inside = True
                return start
            if self._text[start : start + 1] == "[":
                lists.append(name)
        there = f"its lists are: {', '.join(lists) or 'none'}"
        if keys == (None,):
            raise DataError(f"{self.path} is an object, and no list of rows; {there}")
        wanted = next(key for key in keys if key is not None)
        raise DataError(
            f"{self.path} is an object without {_any(keys)}"
            f"{did_you_mean(wanted, lists)}; {there}"
        )

    def _members(self, at: int) -> Iterator[tuple[str, int]]:
        """Yield (key, start of its value) of an object that is open at ``at``."""
        at = self._skip(at)
        while self._text[at : at + 1] != "}":
            if self._text[at : at + 1] != '"':
                raise self._broken(at, "Expecting property name in double quotes")
            name, end = self._value(at, self._lenient)
            colon = self._skip(end)
            if self._text[colon : colon + 1] != ":":
                raise self._broken(colon, "Expecting ':' delimiter")
            start = self._skip(colon + 1)
            yield name, start
            at = self._next(self._value(start, self._lenient)[1], "}")
        self._refuse_more(at + 1)

    def _refuse_more(self, at: int) -> None:
        if (end := self._skip(at)) < len(self._text):
            raise self._broken(end, "Extra data")

    def _item(self, at: int) -> tuple[dict[str, Any] | UnusableRow, int]:
        try:
            item, end = self._value(at, self._strict)
        except UnusableRow as error:  # JSON all the same: the next item can be found
            return error, self._value(at, self._lenient)[1]
        if not isinstance(item, dict):
            return UnusableRow(f"is {show(item)}; write a JSON object"), end
        return item, end

    def _value(self, at: int, decoder: json.JSONDecoder) -> tuple[Any, int]:
        try:
            return decoder.raw_decode(self._text, at)
        except UnusableRow:
            raise
        except json.JSONDecodeError as error:
            raise self._broken(error.pos, said_of(error)) from error
        except RecursionError as error:
            raise self._broken(at, "nested too deeply") from error
        except ValueError as error:  # a whole number of thousands of digits
            raise self._broken(at, str(error)) from error

    def _next(self, end: int, closing: str) -> int:
        """Return where the next value begins, or the closing bracket is."""
        at = self._skip(end)
        mark = self._text[at : at + 1]
        if mark == closing:
            return at
        if mark != ",":
            raise self._broken(at, "Expecting ',' delimiter")
        after = self._skip(at + 1)
        if self._text[after : after + 1] == closing:
            raise self._broken(at, "Illegal trailing comma")
        return after

    def _broken(self, at: int, why: str) -> DataError:
        column = at - self._text.rfind("\n", 0, at)
        end = "; the file seems cut off" if at >= len(self._text.rstrip()) else ""
        return DataError(
            f"{self.place(at)}: is not JSON: {why} at column {column}{end}"
        )

    def _skip(self, at: int) -> int:
        if self._text[at : at + 1] not in " \t\r\n":  # a list on one line has few
            return at
        found = _BLANKS.match(self._text, at)
        return found.end() if found else at

    def _place(self, at: int, number: int) -> str:
        passed = self._text.count("\n", self._counted_to, at)
        if passed:
            self._line += passed
            self._line_start = self._text.rfind("\n", self._counted_to, at) + 1
        self._counted_to = at
        begins = passed and not self._text[self._line_start : at].strip()
        return f"{self._line}" if begins else f"{self._line}#{number}"


def _text_of(path: Path) -> str:
    with or_data_error(path), open_file(path) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: {not_utf_8(error, path, ' of the file')}"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text


def _any(keys: tuple[str | None, ...]) -> str:
    return f"a list under {' or '.join(repr(key) for key in keys if key is not None)}"
