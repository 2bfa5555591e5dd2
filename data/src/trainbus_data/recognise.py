"""Tell of rows that nobody has described yet what they are, and what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainbus_data.readers.choose import open_reader, reader_of
from trainbus_data.rows.json_lines import UnusableRow
from trainbus_data.rows.row_checks import required_fields
from training.discovery.installed import installed
from training.discovery.parts import find_part, named_part
from training.documents.document import dotted
from training.documents.yaml_file import parse_yaml_value
from training.errors import DataError, did_you_mean
from training.files.named_paths import named_path, open_file
from training.recipes.task import Task

__all__ = ["Recognised", "recognise"]

#: Rows that are looked at.
NUM_ROWS = 50
#: What the files of a split are called beside one another.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "dev"),
    "test": ("test",),
}
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", "")
#: What a folder of a split may hold beside folders of classes.
ROW_FILES = frozenset((*SUFFIXES[:-1], ".arrow"))
#: Field of a task -> what else files call it.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "image": ("image_path", "image_file", "file_name", "filename", "img", "picture"),
    "question": ("query", "prompt", "instruction"),
    "answer": ("response", "output", "label", "multiple_choice_answer"),
    "caption": ("text", "description", "sentence"),
    "label": ("class", "category", "class_name", "label_name"),
}
#: Keys of chat data, whose turns a reader hands over as question and answer.
CHATS = (b'"conversations"', b'"messages"')
#: A file or folder, or one reader's name over its options.
Source = Path | Mapping[str, Any]


@dataclass(frozen=True)
class Recognised:
    """What rows are.

    Attributes:
        splits: ``train`` and others -> file or folder, or a reader's name over its
            options.
        reader: name of the reader of the training rows.
        num_rows: of training.
        columns: that the first of them have.
        tasks: name -> its fields -> their columns, of all that fit; the best first.
        is_chat: whether they are turns of a conversation.
    """

    splits: Mapping[str, Source]
    reader: str
    num_rows: int
    columns: Sequence[str]
    tasks: Mapping[str, Mapping[str, str]]
    is_chat: bool


def recognise(given: str, fields: Mapping[str, str] | None = None) -> Recognised:
    """Look at a file of rows, or a folder of such files, of classes or of both.

    Args:
        given: the file or folder, or a reader with options as in a configuration.
        fields: field of a task -> its column, where the names do not tell.
    Raises:
        DataError: it cannot be read, has no such column, or no installed task takes
            such rows.
    """
    is_mapping = given.lstrip().startswith("{")
    splits = sources_of(
        parse_yaml_value(given, "the rows") if is_mapping else named_path(given)
    )
    train = splits["train"]
    place = given if isinstance(train, Mapping) else train
    rows = open_reader("train", train, {}, dotted)
    columns: dict[str, None] = {}
    for index in range(min(len(rows), NUM_ROWS)):
        try:
            columns |= dict.fromkeys(rows[index])
        except UnusableRow as error:
            raise DataError(f"{rows.place(index)}: {error}") from error
    _require(fields or {}, list(columns), place)
    tasks = tasks_for(list(columns), fields or {})
    if not tasks:
        raise DataError(
            f"{place} has rows of: {', '.join(columns)}; no task takes those: "
            f"{'; '.join(_wishes())}; where columns have other names, say which is "
            "which: --field FIELD=COLUMN; for rows of another kind write a task of "
            "your own: trainbus plugins new NAME --kind task (docs/your-own-task.md)"
        )
    name = next(iter(train)) if isinstance(train, Mapping) else reader_of(train)
    is_chat = not isinstance(train, Mapping) and _is_chat(train)
    return Recognised(splits, name, len(rows), list(columns), tasks, is_chat)


def sources_of(given: Source) -> Mapping[str, Source]:
    """Return the sources of all splits; those beside a file are read as it is.

    Raises:
        DataError: there is nothing.
    """
    if isinstance(given, Path):
        return splits_of(given)
    name, options = named_part(given, "the rows")
    path = options.get("path")
    if not isinstance(path, str) or not named_path(path).is_file():
        return {"train": given}
    beside = splits_of(named_path(path))
    return {k: {name: {**options, "path": str(v)}} for k, v in beside.items()}


def splits_of(path: Path) -> dict[str, Path]:
    """Return the files or folders of all splits that are there, training first.

    Raises:
        DataError: there is nothing.
    """
    if not path.exists():
        near = [each.name for each in path.parent.glob("*")] if path.name else []
        raise DataError(
            f"there are no rows at {str(path)!r}{did_you_mean(path.name, near)}"
        )
    found = {}
    if path.is_dir():
        for split, names in SPLITS.items():
            others = (path / f"{name}{end}" for end in SUFFIXES for name in names)
            if (place := next(filter(_is_split, others), None)) is not None:
                found[split] = place
        return found if "train" in found else {"train": path}
    for split, names in SPLITS.items():
        for name in names:
            other = path.with_name(path.name.replace("train", name))
            if other != path and other.exists():
                found.setdefault(split, other)
    return {"train": path, **{k: v for k, v in found.items() if k != "train"}}


def _is_split(path: Path) -> bool:
    """Whether there are rows: of pictures alone, a folder is a class of that name."""
    if not path.is_dir():
        return path.exists()
    inside = (each for each in path.iterdir() if not each.name.startswith("."))
    return any(each.is_dir() or each.suffix in ROW_FILES for each in inside)


def tasks_for(
    columns: Sequence[str], given: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return the installed tasks whose rows have such columns, the best first.

    That is the one that uses most of them, and of these under its own names.

    Args:
        columns: of the rows.
        given: field -> its column, where somebody said so.
    """
    fitting: list[tuple[int, int, str, dict[str, str]]] = []
    for name, task in _tasks().items():
        needed = required_fields(task, needs_target=True)
        matched = {f: given.get(f) or column_of(f, columns) for f in task.fields}
        taken = {f: column for f, column in matched.items() if column is not None}
        if all(f in taken or task.instead.get(f) in taken for f in needed):
            own = sum(taken.get(field) == field for field in needed)
            fitting.append((-len(needed), -own, name, taken))
    return {name: taken for *_, name, taken in sorted(fitting, key=lambda e: e[:3])}


def column_of(field: str, columns: Sequence[str]) -> str | None:
    """Return which of ``columns`` holds a field, by its name or a usual other one."""
    for name in (field, *SYNONYMS.get(field, ())):
        for column in columns:
            if column.lower() == name:
                return column
    return None


def _require(fields: Mapping[str, str], columns: Sequence[str], place: object) -> None:
    """Refuse fields that no task has, and columns that the rows do not have."""
    known = sorted({field for each in _tasks().values() for field in each.fields})
    for field, column in fields.items():
        if field not in known:
            raise DataError(
                f"no installed task has a field {field!r}{did_you_mean(field, known)}; "
                f"fields are: {', '.join(known)}"
            )
        if column not in columns:
            raise DataError(
                f"{place} has no column {column!r}{did_you_mean(column, columns)}; "
                f"its rows have: {', '.join(columns)}"
            )


def _tasks() -> dict[str, type[Task]]:
    """Return the tasks, by name, that are installed and can be loaded."""
    names = sorted({info.name for info in installed("task") if not info.trouble})
    return {name: find_part("task", name, "task") for name in names}


def _wishes() -> list[str]:
    return [
        f"{name} takes "
        + ", ".join(
            f"{field} or {task.instead[field]}" if field in task.instead else field
            for field in required_fields(task, needs_target=True)
        )
        for name, task in _tasks().items()
    ]


def _is_chat(path: Path) -> bool:
    if path.is_dir() or path.suffix not in (".jsonl", ".json"):
        return False
    with open_file(path) as file:
        head = file.read(1 << 16)
    return any(key in head for key in CHATS)
