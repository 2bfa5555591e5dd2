"""A single row that a person asks about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainbus_data.dataset import picture_fault
from trainbus_data.images.open_image import ImageFault
from trainbus_data.rows.json_lines import UnusableRow
from trainbus_data.rows.reading import Row
from trainbus_data.rows.row_checks import RowChecks, required_fields
from training.errors import ConfigError, DataError, did_you_mean
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.task import Task

__all__ = ["asked_row", "batch_of"]


def asked_row(task: Task, fields: Mapping[str, str], max_pixels: int) -> dict[str, Any]:
    """Return the row of these fields; files are relative to the working directory.

    Raises:
        ConfigError: a field is missing, or none of the task's.
        DataError: a value cannot be used.
    """
    wanted = required_fields(task, needs_target=False)
    for name in fields:
        if name not in task.fields:
            raise ConfigError(
                f"--field {name}: the task has no such field"
                f"{did_you_mean(name, task.fields)}; it needs: {', '.join(wanted)}"
            )
    missing = [name for name in wanted if name not in fields]
    if missing:
        more = " ".join(f"--field {name}=..." for name in missing)
        raise ConfigError(f"{' and '.join(missing)} is missing; add: {more}")
    here = Path.cwd()
    checks = RowChecks(
        task, here, Path(here.anchor), max_pixels=max_pixels, needs_target=False
    )
    try:
        return checks.read(fields, "asked:1")
    except UnusableRow as error:
        raise DataError(f"--field {error}") from error


def batch_of(family: ModelFamily, processor: Any, row: Mapping[str, Any]) -> Batch:
    """Return the batch of that one row.

    Raises:
        DataError: a picture of it cannot be used.
    """
    try:
        return family.collate(processor, [row])
    except ImageFault as fault:
        _, reason = picture_fault([Row(row, "asked:1")], fault)
        raise DataError(reason) from fault
