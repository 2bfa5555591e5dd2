"""A single row that a person asks about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainbus_data.collating import picture_fault
from trainbus_data.images.open_image import ImageFault
from trainbus_data.rows.json_lines import UnusableRow
from trainbus_data.rows.reading import Row
from trainbus_data.rows.row_checks import RowChecks, required_fields
from training.errors import ConfigError, DataError, did_you_mean
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.task import Task

__all__ = ["asked_row", "batch_of"]


def asked_row(
    task: Task, given: Mapping[str, str], max_pixels: int, names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the row of these fields; files are relative to the working directory.

    Args:
        task: says what a row holds.
        given: the values, by the task's names of fields or by those in ``names``; of a
            field of several texts a JSON list.
        max_pixels: a picture with more is refused.
        names: field -> what the files of the run called it, where that differs.
    Raises:
        ConfigError: a field is missing, given twice, or none of the task's.
        DataError: a value cannot be used.
    """
    wanted = required_fields(task, needs_target=False)
    fields = _by_field(task, given, names, wanted)
    missing = [name for name in wanted if name not in fields]
    if missing:
        more = " ".join(f"--field {name}=..." for name in missing)
        raise ConfigError(f"{' and '.join(missing)} is missing; add: {more}")
    here = Path.cwd()
    checks = RowChecks(
        task, here, Path(here.anchor), max_pixels=max_pixels, needs_target=False
    )
    try:
        return checks.read(_values(task, fields), "asked:1")
    except UnusableRow as error:
        raise DataError(f"--field {error}") from error


def _by_field(
    task: Task, given: Mapping[str, str], names: Mapping[str, str], wanted: list[str]
) -> dict[str, str]:
    """Return the values by the task's names, which count more than the files'."""
    field_of = {names[field]: field for field in task.fields if field in names}
    field_of |= {field: field for field in task.fields}
    written: dict[str, str] = {}
    for name in given:
        if name not in field_of:
            needed = (f"{f} (or {names[f]})" if f in names else f for f in wanted)
            raise ConfigError(
                f"--field {name}: the task has no such field"
                f"{did_you_mean(name, field_of)}; it needs: {', '.join(needed)}"
            )
        first = written.setdefault(field_of[name], name)
        if first != name:
            raise ConfigError(
                f"--field {first} and --field {name} are one field; keep one"
            )
    return {field: given[name] for field, name in written.items()}


def _values(task: Task, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what was typed, of a field of several texts the list that it says."""
    return {
        name: _list(name, typed) if task.fields[name].startswith("texts") else typed
        for name, typed in fields.items()
    }


def _list(name: str, typed: str) -> list[Any]:
    try:
        value = json.loads(typed)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ConfigError(
            f"--field {name} is {typed!r}; it has several texts: write a JSON list, "
            f'as in --field \'{name}=["a", "b"]\''
        )
    return value


def batch_of(family: ModelFamily, processor: Any, row: Mapping[str, Any]) -> Batch:
    """Return the batch of that one row.

    Raises:
        DataError: a picture of it cannot be used.
    """
    family.prepare(processor, [row])  # it warns of a text that will be cut
    try:
        return family.collate(processor, [row])
    except ImageFault as fault:
        _, reason = picture_fault([Row(row, "asked:1")], fault)
        raise DataError(reason) from fault
