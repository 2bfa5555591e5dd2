"""Read JSON-lines rows strictly: every bad row is named with file, line and reason.

A row is ``{"image": ..., "question": ..., "answer": ...}`` with optional
``question_id`` (string or whole number, unique in its file), ``answers`` (list of the
annotators' strings, or of objects with ``answer`` as the VQA annotations have them) and
``kind`` (what accuracy is reported by); further keys are left alone. ``image`` is
relative to the folder of the file that holds the row.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.rows.json_lines import UnusableRow, lines_of, parse_object, show
from training.errors import DataError, did_you_mean

__all__ = [
    "BadRow",
    "Row",
    "RowReader",
    "kind_of",
    "read_rows",
    "settle_bad_rows",
]

logger = logging.getLogger(__name__)

REQUIRED = ("image", "question", "answer")
#: How many bad rows one message spells out; the rest are counted.
NUM_SHOWN = 20
#: How many of those with the same fault are among them.
NUM_ALIKE = 3
#: Image paths that are remembered, so that a picture's other rows need not ask for it.
MAX_RESOLVED = 1 << 18


@dataclass(frozen=True, slots=True)
class Row:
    """One question about one image.

    Attributes:
        image_path: absolute, inside the data root.
        image: as written in the file.
        question: stripped, not empty.
        answer: the answer to train on; stripped, not empty.
        question_id: unique in its file; ``<file stem>-<line>`` when the row has none.
        answers: all annotators' answers; ``(answer,)`` when the row has none.
        kind: such as ``yes_no``, ``number``, ``other``.
        line: in the file, from 1.
    """

    image_path: str
    image: str
    question: str
    answer: str
    question_id: str | int
    answers: tuple[str, ...]
    kind: str
    line: int

    def as_dict(self) -> dict[str, Any]:
        """Return what an evaluator needs, JSON values only."""
        return {
            "question_id": self.question_id,
            "question": self.question,
            "answer": self.answer,
            "answers": list(self.answers),
            "kind": self.kind,
            "image": self.image,
        }


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def kind_of(answer: str) -> str:
    """Return ``yes_no``, ``number`` or ``other``, as VQA v2 groups its answers."""
    word = answer.strip().lower()
    if word in {"yes", "no"}:
        return "yes_no"
    digits = word.replace(",", "").replace(".", "", 1)
    return "number" if digits.isascii() and digits.isdigit() else "other"


def read_rows(path: Path, root: Path | None = None) -> tuple[list[Row], list[BadRow]]:
    """Return the usable rows of a JSON-lines file and the bad ones, in file order.

    Args:
        path: UTF-8, one JSON object a line; a byte order mark, CRLF and blank lines
            are accepted.
        root: folder that no image may lie outside; by default the file's own.
    Raises:
        DataError: the file is missing, not a file, of another format as a whole, or
            holds no row at all.
    """
    refuse_other_formats(path)
    reader = RowReader(path, root)
    rows: list[Row] = []
    bad: list[BadRow] = []
    for line, raw in lines_of(path):
        try:
            rows.append(reader.read(line, raw))
        except UnusableRow as error:
            bad.append(BadRow(path, line, str(error)))
    if not rows and not bad:
        raise DataError(f"{path} holds no rows; each line should be a JSON object")
    return rows, bad


def settle_bad_rows(
    bad: Sequence[BadRow],
    num_rows: int,
    policy: Literal["error", "skip"],
    max_bad_fraction: float,
) -> None:
    """Refuse the bad rows of one file, or warn about them when the policy allows.

    Args:
        bad: may be empty; then nothing happens.
        num_rows: rows of the file, bad ones included.
        policy: ``error`` raises on the first call with a bad row.
        max_bad_fraction: above this share ``skip`` raises too.
    Raises:
        DataError: lists the bad rows as ``file:line: reason``; of many with the same
            fault the first few, and their number.
    """
    if not bad:
        return
    share = len(bad) / num_rows
    listed = "".join(f"\n  {line}" for line in _told(bad))
    found = f"{len(bad)} of {num_rows} rows of {bad[0].path} cannot be used"
    if policy == "error":
        raise DataError(
            f"{found}; mend them, or set data.on_bad_row to 'skip':{listed}"
        )
    if share > max_bad_fraction or len(bad) == num_rows:
        raise DataError(
            f"{found}, a share of {share:.3f}, but data.max_bad_fraction is "
            f"{max_bad_fraction}:{listed}"
        )
    logger.warning("%s and are left out:%s", found, listed)


def _told(bad: Sequence[BadRow]) -> list[str]:
    """Return lines that tell of the bad rows, those with the same fault together."""
    alike: dict[str, list[BadRow]] = {}
    for row in bad:
        alike.setdefault(_fault(row.reason), []).append(row)
    lines: list[str] = []
    num_hidden = 0
    room = NUM_SHOWN
    for rows in alike.values():
        shown = rows[: min(NUM_ALIKE, room)]
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


class RowReader:
    """Turns the lines of one file into rows.

    Args:
        path: the file.
        root: folder that no image may lie outside; by default the file's own.
        is_whole_file: every line is read once: then a ``question_id`` that is given
            twice is refused, at the cost of remembering them all.
    """

    def __init__(
        self, path: Path, root: Path | None = None, is_whole_file: bool = True
    ) -> None:
        self._stem = path.stem
        self._folder = os.path.realpath(path.parent)
        self._root = os.path.realpath(path.parent if root is None else root)
        self._line_of_id: dict[str | int, int] | None = {} if is_whole_file else None
        self._resolved: dict[str, str] = {}

    def read(self, line: int, raw: bytes) -> Row:
        """Return the row on ``line``.

        Raises:
            UnusableRow: says why it cannot be used.
        """
        values = parse_object(raw)
        missing = [key for key in REQUIRED if key not in values]
        if missing:
            hint = did_you_mean(missing[0], values)
            raise UnusableRow(
                f"lacks {' and '.join(map(repr, missing))}{hint}; a row needs "
                "'image', 'question' and 'answer'"
            )
        image, question, answer = (_text(values[key], key) for key in REQUIRED)
        answers = _answers(values["answers"]) if "answers" in values else (answer,)
        kind = _text(values["kind"], "kind") if "kind" in values else kind_of(answer)
        return Row(
            image_path=self._locate(image),
            image=image,
            question=question,
            answer=answer,
            question_id=self._identify(values, line),
            answers=answers,
            kind=kind,
            line=line,
        )

    def _identify(self, values: dict[str, Any], line: int) -> str | int:
        given = values.get("question_id", f"{self._stem}-{line}")
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise UnusableRow(
                f"question_id is {show(given)}; write a string or a whole number"
            )
        if self._line_of_id is not None:
            first = self._line_of_id.setdefault(given, line)
            if first != line:
                raise UnusableRow(
                    f"question_id {given!r} is already used on line {first}"
                )
        return given

    def _locate(self, image: str) -> str:
        """Return the image's real path; refuse one outside the root."""
        if image not in self._resolved:
            if "\0" in image:
                raise UnusableRow("image holds a NUL character")
            path = os.path.realpath(os.path.join(self._folder, image))
            if os.path.commonpath([self._root, path]) != self._root:
                raise UnusableRow(
                    f"image {image!r} lies outside {self._root}; set data.root to a "
                    "folder that holds both rows and images"
                )
            if len(self._resolved) == MAX_RESOLVED:
                self._resolved.clear()
            self._resolved[image] = path
        return self._resolved[image]


def _answers(value: Any) -> tuple[str, ...]:
    """Return the annotators' answers; of objects their ``answer`` is taken."""
    if not isinstance(value, list) or not value:
        raise UnusableRow(f"answers is {show(value)}; write a list of strings")
    answers = []
    for place, item in enumerate(value):
        name = f"answers[{place}]"
        if isinstance(item, dict):
            if "answer" not in item:
                raise UnusableRow(f"{name} is {show(item)}; write a string in 'answer'")
            name, item = f"{name}.answer", item["answer"]
        answers.append(_text(item, name))
    return tuple(answers)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise UnusableRow(f"{key} is {show(value)}; write a string")
    text = value.strip()
    if not text:
        raise UnusableRow(f"{key} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnusableRow(f"{key} holds half a surrogate pair") from error
    return text
