"""The reader ``csv``: a table whose first line names its columns."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainbus_data.readers.derived import PicturePattern
from trainbus_data.readers.kept_rows import Item, KeptRows
from trainbus_data.rows.formats import reader_line, refuse_other_formats
from trainbus_data.rows.json_lines import (
    MAX_LINE_BYTES,
    UnusableRow,
    lines_of,
    not_utf_8,
    show,
)
from trainbus_data.unreadable import or_data_error
from training.errors import ConfigError, DataError
from training.files.named_paths import named_path, open_file
from training.messages.tables import count

__all__ = ["CsvTable"]

#: Between the items of a cell that holds a list.
BETWEEN_ITEMS = ";"
#: A quote opens a cell only as its very first character: these stay, and divide none.
_BLANK_THEN_QUOTES = re.compile(r'\s+"[^"]*"\s*')
#: A first line of Excel's, which says what separates cells.
_SAYS = re.compile(r"\s*sep=([^\w\"])\s*$", re.IGNORECASE)


class CsvTable(KeptRows):
    """The rows of a CSV or TSV file; every value is a text.

    Nothing is guessed: ``007`` and ``NA`` are texts like others. An empty cell is no
    value, and a column without a name is left out.

    Args:
        path: UTF-8, with or without a byte order mark; quotes as in RFC 4180.
        separator: the character between cells; None: what a first line ``sep=;`` says,
            as Excel has it, else a tab in ``.tsv`` files, else a comma.
        lists: columns whose cells hold several texts, separated by ``;``.
        images: pattern over a row's values that gives its picture, such as
            ``train2014/{image_id:0>12}.jpg``; None: rows have ``image``.
    Raises:
        DataError: the file cannot be read, is of another format, names a column twice,
            leaves a quote open or holds no row.
        ConfigError: the pattern is none, or the separator not one character.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        separator: str | None = None,
        lists: Sequence[str] = ("answers",),
        images: str | None = None,
    ) -> None:
        path = named_path(path)
        pictures = PicturePattern(images)
        is_unsaid = separator is None
        if separator is None:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
        if len(separator) != 1 or separator in '"\r\n':
            raise ConfigError(
                f"separator is {separator!r}, but must be one character, as in "
                'separator: ";" or, for a tab, separator: "\\t"'
            )
        if isinstance(lists, str):
            raise ConfigError(f"lists is {lists!r}; write a list: [{lists}]")
        refuse_other_formats(path, "csv")
        if is_unsaid:
            separator = _declared(path) or separator
        table = _Table(path, separator, frozenset(lists), pictures)
        super().__init__(
            path,
            [path],
            {"reader": "csv", "separator": separator, "lists": sorted(lists),
             "images": images},
            table.rows,
        )  # fmt: skip


@dataclass
class _Table:
    """One pass over the file of a table."""

    path: Path
    separator: str
    lists: frozenset[str]
    pictures: PicturePattern
    line: str = ""  # that was read last

    def rows(self) -> Iterator[Item]:
        with or_data_error(self.path):
            file = open_file(self.path)
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            # It is the whole process's, so it is only ever raised.
            csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
            lines = self._lines(text)
            reader = csv.reader(lines, delimiter=self.separator, strict=True)
            try:
                head = self._head(reader)
                yield from self._rows(reader, head)
            except UnicodeDecodeError as error:
                raise self._not_utf_8() from error

    def _lines(self, text: Iterable[str]) -> Iterator[str]:
        for self.line in text:
            yield self.line

    def _head(self, reader: Any) -> list[str]:
        cells: list[str] = []
        while not any(cells):
            try:
                cells = next(reader)
                told = _quoted_too_late(cells, self.separator)
                if told:
                    raise DataError(f"{self.path}:{reader.line_num}: the head {told}")
                cells = [cell.strip() for cell in cells]
                if reader.line_num == 1 and _SAYS.match(self.separator.join(cells)):
                    cells = []  # no head: it says what stands between cells
            except StopIteration:
                raise DataError(f"{self.path} is empty") from None
            except csv.Error as error:
                raise DataError(
                    f"{self.path}:1: the head is no CSV: {error}"
                ) from error
        place = f"{self.path}:{reader.line_num}"
        names = [name for name in cells if name]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"{place}: the head names the column {name!r} twice")
        other = next((each for each in ";\t|," if each in names[0]), None)
        if len(cells) == 1 and other:
            line = reader_line("csv", path=self.path, separator=other)
            raise DataError(
                f"{place}: the head is one column, {names[0]!r}; if its cells are "
                f"separated by {other!r}, write {line}"
            )
        return cells

    def _rows(self, reader: Any, head: list[str]) -> Iterator[Item]:
        while True:
            place = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                is_one_line = reader.line_num == place
                yield str(place), self._fault(place, error, is_one_line)
                continue
            if cells:  # none: a blank line
                yield str(place), self._row(cells, head)

    def _row(self, cells: list[str], head: list[str]) -> dict[str, Any] | UnusableRow:
        if told := _quoted_too_late(cells, self.separator, len(head)):
            return UnusableRow(told)
        if len(cells) != len(head):
            return UnusableRow(
                f"has {count(len(cells), 'cell')}, where the head has {len(head)}; a "
                f"cell that holds {self.separator!r} stands in double quotes"
            )
        row: dict[str, Any] = {}
        for name, cell in zip(head, cells, strict=True):
            if name and cell.strip():
                row[name] = cell
        try:
            for name in [name for name in row if name in self.lists]:
                row[name] = _items_of(row[name], name)
                if not row[name]:
                    del row[name]
            return self.pictures.add_to(row)
        except UnusableRow as error:
            return error

    def _fault(self, place: int, error: csv.Error, is_one_line: bool) -> UnusableRow:
        """Return why a row is none; refuse the file where all the rest is lost, too."""
        told = str(error)
        if (
            "field limit" in told
            and is_one_line
            and not _leaves_a_quote_open(self.line, self.separator)
        ):  # the next line is a row again
            most = csv.field_size_limit()
            return UnusableRow(f"has a cell of more than {most} characters")
        if "end of data" in told or "field limit" in told:
            raise DataError(
                f"{self.path}:{place}: a cell begins here that does not end within "
                f"{csv.field_size_limit()} characters; close its double quote; write "
                'a quote in a quoted cell as two: ""'
            ) from error
        return UnusableRow(
            f"is no CSV: {told}; write a double quote in a quoted cell as two"
        )

    def _not_utf_8(self) -> DataError:
        for line, raw in lines_of(self.path):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                told = not_utf_8(error, self.path)
                return DataError(f"{self.path}:{line}: {told}")
        return DataError(f"{self.path} is not UTF-8")


def _quoted_too_late(
    cells: list[str], separator: str, wanted: int | None = None
) -> str | None:
    """Return what is wrong with a cell in quotes behind a blank; None: there is none.

    Args:
        cells: of a row, as read.
        separator: between them.
        wanted: how many there are to be; with another number half a quoted cell tells.
    """
    for cell in cells:
        is_half = wanted not in (None, len(cells)) and cell.lstrip().startswith('"')
        if _BLANK_THEN_QUOTES.fullmatch(cell) or (is_half and cell[0].isspace()):
            return (
                f"has a blank before the double quote in {show(cell)}, which makes the "
                f"quotes part of the text; write the quote right behind {separator!r}"
            )
    return None


def _leaves_a_quote_open(line: str, separator: str) -> bool:
    """Whether the lines after one with too long a cell may be of that cell."""
    # Without its texts it is short, and its quotes open and close as before.
    short = re.sub(f'[^"\\r\\n{re.escape(separator)}]+', "x", line)
    try:
        list(csv.reader([short], delimiter=separator, strict=True))
    except csv.Error as error:
        return "end of data" in str(error) or "field limit" in str(error)
    return False


def _declared(path: Path) -> str | None:
    """Return which separator the first line says, if it says one."""
    with or_data_error(path), open_file(path) as file:
        first = file.readline(32)
    found = _SAYS.match(first.decode("utf-8-sig", "replace").rstrip("\r\n"))
    return found[1] if found else None


def _items_of(cell: str, name: str) -> list[str]:
    """Return the texts of a cell that holds several."""
    if cell.strip().startswith("[") and cell.strip().endswith("]"):
        raise UnusableRow(
            f"{name} is {show(cell)}, a list in brackets; separate its texts by "
            f"{BETWEEN_ITEMS!r} alone"
        )
    items = [item.strip() for item in cell.split(BETWEEN_ITEMS)]
    return [item for item in items if item]
