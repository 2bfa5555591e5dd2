"""What a file says of a row becomes what a task wants of it, or a reason why not."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainbus_data.images.picture import MAX_PIXELS, EmbeddedPicture, Picture
from trainbus_data.rows.json_lines import UnusableRow, show
from training.errors import ConfigError, did_you_mean
from training.recipes.task import Task

__all__ = ["CHATS", "KINDS", "MadeId", "RowChecks", "required_fields"]

logger = logging.getLogger(__name__)

#: Kinds of values that a task's fields may have.
KINDS = ("text", "texts", "id", "picture")
#: Fields that may hold a question and its answer as turns -> who speaks, and the text.
CHATS = {"conversations": ("from", "value"), "messages": ("role", "content")}
#: Paths of pictures that are remembered, so that a picture's other rows need not ask.
MAX_RESOLVED = 1 << 18


class MadeId(str):
    """The id of a row that has none: its file and line, which nobody else knows."""

    __slots__ = ()


def required_fields(task: Task | type[Task], needs_target: bool) -> list[str]:
    """Return the fields that a row must have; an id that is missing is made."""
    return [
        name
        for name, kind in task.fields.items()
        if kind != "id"
        and not str(kind).endswith("?")  # a stranger may have other kinds
        and (needs_target or name != task.target)
    ]


class RowChecks:
    """Turns the values of one reader's rows into a task's rows.

    Args:
        task: says what a row holds.
        folder: what pictures are relative to.
        root: the folder that no picture may lie outside; None: ``folder``.
        names: field -> what the file calls it, where that differs.
        max_pixels: a picture with more is refused when it is opened.
        is_whole: every row is read once: then an id that is given twice is refused, at
            the cost of remembering them all.
        needs_target: whether a row without the task's target is refused.
        unread: fields that nobody reads: a value of theirs that cannot be used is left
            out, and costs no row.
    Raises:
        ConfigError: the task has a field of a kind that is not known.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        root: Path | None = None,
        names: Mapping[str, str] | None = None,
        max_pixels: int = MAX_PIXELS,
        is_whole: bool = False,
        needs_target: bool = True,
        unread: Collection[str] = (),
    ) -> None:
        self._task = task
        self._folder = os.path.realpath(folder)
        self._root = os.path.realpath(folder if root is None else root)
        self._names = dict(names or {})
        self._max_pixels = max_pixels
        self._place_of_id: dict[str, str] | None = {} if is_whole else None
        self._resolved: dict[str, str] = {}
        self._has_told = False
        self._kinds = {name: kind.rstrip("?") for name, kind in task.fields.items()}
        self._required = required_fields(task, needs_target)
        self._unread = unread
        self._refuse_unknown_kinds()

    def read(self, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Return the row that stands at ``place``, fields in the task's order.

        Raises:
            UnusableRow: says why it cannot be used.
        """
        self._refuse_missing(values)
        row: dict[str, Any] = {}
        for name, kind in self._kinds.items():
            key = self.name_of(name)
            if kind == "id":
                row[name] = self._identify(name, values.get(key), place)
            elif self._has(values, name):
                try:
                    row[name] = self._value(kind, name, values[key], place)
                except UnusableRow:
                    if name not in self._unread:
                        raise
        self._task.complete(row)
        return row

    def name_of(self, field: str) -> str:
        """Return what the file calls a field."""
        return self._names.get(field, field)

    def _has(self, values: Mapping[str, Any], field: str) -> bool:
        """Whether there is a value: null is none of what a row may do without."""
        key = self.name_of(field)
        return key in values and (values[key] is not None or field in self._required)

    def _refuse_unknown_kinds(self) -> None:
        for name, kind in self._kinds.items():
            if kind not in KINDS:
                raise ConfigError(
                    f"the task's field {name!r} is of kind {kind!r}"
                    f"{did_you_mean(kind, KINDS)}; known here: {', '.join(KINDS)}"
                )

    def _refuse_missing(self, values: Mapping[str, Any]) -> None:
        missing = [n for n in self._required if self.name_of(n) not in values]
        if missing:  # few rows lack one: the others need not ask
            has = {name for name in self._kinds if self._has(values, name)}
            missing = [n for n in missing if self._task.instead.get(n) not in has]
        if not missing:
            return
        keys = [self.name_of(name) for name in missing]
        wanted = [repr(self.name_of(name)) for name in self._required]
        *most, last = wanted
        needed = f"{', '.join(most)} and {last}" if most else last
        raise UnusableRow(
            f"lacks {' and '.join(map(repr, keys))}{did_you_mean(keys[0], values)}; a "
            f"row needs {needed}{_unread_turns(values)}"
        )

    def _value(self, kind: str, name: str, value: Any, place: str) -> Any:
        if kind == "texts":
            return _texts(value, name)
        if kind == "text":
            if type(value) is int and not self._has_told:
                self._has_told = True
                logger.warning(
                    "%s: %s is the number %d; whole numbers are taken as texts, here "
                    "'%d', as in a table",
                    *(place, self.name_of(name), value, value),
                )
            return _text(value, name)
        if isinstance(value, bytes):
            return EmbeddedPicture(value, self._max_pixels)
        if not isinstance(value, str):
            raise UnusableRow(f"{name} is {show(value)}; write a string")
        return self._picture(_text(value, name), name)

    def _identify(self, name: str, given: Any, place: str) -> str | int:
        if given is None:
            file, _, line = place.rpartition(":")
            given = MadeId(f"{Path(file).stem}-{line}")
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise UnusableRow(
                f"{name} is {show(given)}; write a string or a whole number"
            )
        if self._place_of_id is not None:
            # 7 and "7" are one id, as they are one label.
            first = self._place_of_id.setdefault(str(given), place)
            if first != place:
                line = first.rpartition(":")[2]
                raise UnusableRow(f"{name} {given!r} is already used on line {line}")
        return given

    def _picture(self, text: str, name: str) -> Picture:
        """Return the picture at its real path; refuse one outside the root."""
        if text not in self._resolved:
            if "\0" in text:
                raise UnusableRow(f"{name} holds a NUL character")
            named = os.path.join(self._folder, text)
            path = os.path.realpath(named)
            common = os.path.commonpath([self._root, path])
            if common != self._root:
                if os.path.islink(named) and not os.path.lexists(path):
                    raise UnusableRow(
                        f"{name} {text!r} is a link that leads nowhere, to {path!r}"
                    )
                is_direct = path == os.path.normpath(named)
                how = "lies" if is_direct else f"leads by a link to {path!r},"
                raise UnusableRow(
                    f"{name} {text!r} {how} outside {self._root}; set data.root to "
                    f"{common!r}, which holds rows and images, and write the paths of "
                    "rows, as in data.train, relative to it, or move the images"
                )
            if len(self._resolved) == MAX_RESOLVED:
                self._resolved.clear()
            self._resolved[text] = path
        return Picture(text, self._resolved[text], self._max_pixels)


def _unread_turns(values: Mapping[str, Any]) -> str:
    """Return what to say of a row that mixes chat turns with a field in their place."""
    turns = next((key for key in CHATS if key in values), None)
    if turns is None or "question" not in values:
        return ""
    return (
        f"; it has 'question' and {turns!r}, which is not read beside that: keep "
        "'question' and 'answer', or the turns alone"
    )


def _texts(value: Any, name: str) -> list[str]:
    """Return a list of texts; of objects their ``answer`` is taken."""
    if not isinstance(value, list) or not value:
        way = "write a list of strings"
        if isinstance(value, str) and value:  # a cell of a table can hold no list
            way += f"; of a CSV file: {{csv: {{path: FILE, lists: [{name}]}}}}"
        raise UnusableRow(f"{name} is {show(value)}; {way}")
    texts = []
    for place, item in enumerate(value):
        at = f"{name}[{place}]"
        if isinstance(item, dict):
            if "answer" not in item:
                raise UnusableRow(f"{at} is {show(item)}; write a string in 'answer'")
            at, item = f"{at}.answer", item["answer"]
        texts.append(_text(item, at))
    return texts


def _text(value: Any, name: str) -> str:
    if type(value) is int:  # not so true, and no fraction: 3.0 has several texts
        return str(value)
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is {show(value)}; write a string or a whole number")
    text = value.strip()
    if not text:
        raise UnusableRow(f"{name} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnusableRow(f"{name} holds half a surrogate pair") from error
    return text
