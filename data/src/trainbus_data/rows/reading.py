"""Read rows strictly: every bad one is named with its place and a reason."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainbus_data.images.picture import Picture
from trainbus_data.readers.json_lines import JsonLines
from trainbus_data.rows.row_checks import RowChecks
from trainbus_data.vqa.task import VQA
from training.errors import DataError
from training.messages.tables import count
from training.recipes.reader import Reader

__all__ = ["BadRow", "Row", "read_all", "read_row", "read_rows", "settle_bad_rows"]

logger = logging.getLogger(__name__)

#: How many bad rows one message spells out; the rest are counted.
NUM_SHOWN = 20
#: How many of those with the same fault are among them.
NUM_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be used; its fields are attributes, too.

    Attributes:
        values: the task's fields, in its order.
        place: where it stands, as in ``"train.jsonl:7"``.
    """

    values: Mapping[str, Any]
    place: str

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def line(self) -> int:
        """Its line in the file, from 1."""
        return int(self.place.rpartition(":")[2])

    @property
    def pictures(self) -> list[Picture]:
        """What it shows."""
        return [value for value in self.values.values() if isinstance(value, Picture)]

    def told_of(self, faults: Mapping[str, object]) -> str:
        """Return what to say of the first picture with a fault; ``""``: none has one.

        Args:
            faults: key of a picture -> a phrase that goes on from its name.
        """
        for name, value in self.values.items():
            if isinstance(value, Picture) and value.key in faults:
                return f"{name} {str(value)!r} {faults[value.key]}"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON values only."""
        return dict(self.values)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    place: str
    reason: str

    @property
    def path(self) -> str:
        """Its file."""
        return self.place.rpartition(":")[0]

    @property
    def line(self) -> int | str:
        """Its line in the file, from 1, or where else it is there, as in ``#12``."""
        line = self.place.rpartition(":")[2]
        return int(line) if line.isdecimal() else line

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def read_row(reader: Reader, checks: RowChecks, index: int) -> Row | BadRow:
    """Return one row of a reader, or why it cannot be used."""
    place = reader.place(index)
    try:
        return Row(checks.read(reader[index], place), place)
    except DataError as error:
        return BadRow(place, str(error))


def read_all(reader: Reader, checks: RowChecks) -> tuple[list[Row], list[BadRow]]:
    """Return the usable rows of a reader and the bad ones, in order."""
    read = [read_row(reader, checks, index) for index in range(len(reader))]
    rows = [row for row in read if isinstance(row, Row)]
    return rows, [row for row in read if isinstance(row, BadRow)]


def read_rows(path: Path, root: Path | None = None) -> tuple[list[Row], list[BadRow]]:
    """Return the usable rows of a JSON-lines file and the bad ones, in file order.

    A row is ``{"image": ..., "question": ..., "answer": ...}``, as ``VQA`` has it.

    Args:
        path: UTF-8, one JSON object a line; a byte order mark, CRLF and blank lines
            are accepted.
        root: folder that no image may lie outside; by default the file's own.
    Raises:
        DataError: the file is missing, not a file, of another format as a whole, or
            holds no row at all.
    """
    reader = JsonLines(path)
    return read_all(reader, RowChecks(VQA(), reader.root, root, is_whole=True))


def settle_bad_rows(
    bad: Sequence[BadRow],
    num_rows: int,
    policy: Literal["error", "skip"],
    max_bad_fraction: float,
    may_skip: bool = True,
    num_before: int = 0,
) -> None:
    """Refuse the bad rows of one file, or warn about them when the policy allows.

    Args:
        bad: may be empty; then nothing happens.
        num_rows: rows of the file, bad ones included.
        policy: ``error`` raises on the first call with a bad row.
        max_bad_fraction: above this share ``skip`` raises too.
        may_skip: whether the policy can be chosen, which the error then says.
        num_before: rows of the file that are left out already, and count as well.
    Raises:
        DataError: lists the bad rows as ``file:line: reason``; of many with the same
            fault the first few, and their number.
    """
    if not bad:
        return
    share = (len(bad) + num_before) / num_rows
    listed = "".join(f"\n  {line}" for line in _told(bad, num_rows))
    found = f"{len(bad):,} of {count(num_rows, 'row')} of {bad[0].path} cannot be used"
    if num_before:
        found += f", beside {num_before:,} left out before"
    is_all = share == 1  # which no policy bears
    if policy == "error" or is_all:
        way_out = ", or set data.on_bad_row to 'skip'"
        more = way_out if may_skip and not is_all else ""
        raise DataError(f"{found}; mend them{more}:{listed}")
    if share > max_bad_fraction:
        short = f"{share:.3f}"
        told = short if float(short) > max_bad_fraction else f"{share:.9g}"
        raise DataError(
            f"{found}, a share of {told}, but data.max_bad_fraction is "
            f"{max_bad_fraction}:{listed}"
        )
    are = "is" if len(bad) == 1 else "are"
    logger.warning("%s and %s left out:%s", found, are, listed)


def _told(bad: Sequence[BadRow], num_rows: int) -> list[str]:
    """Return lines that tell of the bad rows, those with the same fault together.

    A fault of all rows is shown once.
    """
    alike: dict[str, list[BadRow]] = {}
    for row in bad:
        alike.setdefault(_fault(row.reason), []).append(row)
    lines: list[str] = []
    num_hidden = 0
    room = NUM_SHOWN
    is_of_all = len(alike) == 1 and len(bad) == num_rows
    most = 1 if is_of_all else NUM_ALIKE
    for rows in alike.values():
        shown = rows[: min(most, room)]
        rest = rows[len(shown) :]
        room -= len(shown)
        lines += map(str, shown)
        if not shown:
            num_hidden += len(rest)
        elif rest:
            places = ", ".join(str(row.line) for row in rest[:NUM_SHOWN])
            dots = ", ..." if len(rest) > NUM_SHOWN else ""
            lines.append(
                f"... and {len(rest)} more with that fault: lines {places}{dots}"
            )
    if num_hidden:
        lines.append(f"... and {num_hidden} more")
    return lines


def _fault(reason: str) -> str:
    """Return ``reason`` without what differs from row to row: names and values."""
    text = re.sub(r"^(image|question_id) (['\"]).*?\2 ", r"\1 ", reason)
    text = re.sub(r" is .*; write", " is not so; write", text)
    return re.sub(r"\d+", "", text)
