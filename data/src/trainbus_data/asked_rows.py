"""Many rows that a person asks about: a file of them, answered in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainbus_data.dataset import picture_fault
from trainbus_data.images.open_image import ImageFault
from trainbus_data.readers.choose import open_reader
from trainbus_data.rows.field_names import look, refuse_absent
from trainbus_data.rows.indexed_rows import is_large
from trainbus_data.rows.reading import BadRow, Row, settle_bad_rows
from trainbus_data.rows.row_checks import RowChecks, required_fields
from training.documents.document import Key
from training.errors import DataError
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.task import Task

__all__ = ["AskedRows"]


class AskedRows:
    """The rows of a file, which need not have the task's target.

    All are checked at once, so that no prediction is lost to a bad row behind it. Those
    of up to ``HELD_MB`` are kept then; more stay where they are, and are read again as
    they are asked for. Files that rows name are relative to where the rows lie, as in
    training, and may lie anywhere.

    Args:
        source: a path, or one reader's name over its options.
        task: says what a row holds.
        names: field -> what the file calls it, where that differs.
        max_pixels: a picture with more is refused.
    Raises:
        ConfigError: the reader or an option is unknown, or does not fit.
        DataError: there is nothing to read, or a row cannot be used.
    """

    def __init__(
        self,
        source: Path | Mapping[str, Any],
        task: Task,
        names: Mapping[str, str],
        max_pixels: int,
    ) -> None:
        if isinstance(source, Path) and not source.exists():
            raise DataError(
                f"--rows {str(source)!r} is not a file here ({Path.cwd()}); correct "
                "the path"
            )
        self._reader = open_reader("rows", source, {}, _place)
        needed = required_fields(task, needs_target=False)
        named = {name: names[name] for name in needed if name in names}
        refuse_absent(
            look(self._reader, [names.get(name, name) for name in needed]),
            *(needed, named, "data.fields.{} of the run".format),
            may_name=False,
        )
        root = self._reader.root
        self._checks = RowChecks(
            *(task, root, Path(root.absolute().anchor), names, max_pixels),
            needs_target=False,
        )
        self._target = task.target
        #: All of them; empty where they are too many.
        self._held: list[Row] = []
        self._check()

    def __len__(self) -> int:
        return len(self._reader)

    def batches(
        self, family: ModelFamily, processor: Any, size: int
    ) -> Iterator[tuple[list[dict[str, Any]], Batch]]:
        """Yield rows and the batch that a family makes of them, in order.

        The batch knows nothing of the target, which some rows may have.

        Args:
            family: makes batches.
            processor: what it takes.
            size: rows in a batch.
        Raises:
            DataError: a row or a picture cannot be used; names its place.
        """
        for first in range(0, len(self), size):
            rows = [self._row(i) for i in range(first, min(first + size, len(self)))]
            asked = [
                {name: v for name, v in row.values.items() if name != self._target}
                for row in rows
            ]
            try:
                batch = family.collate(processor, asked)
            except ImageFault as fault:
                place, reason = picture_fault(rows, fault)
                raise DataError(str(BadRow.at(rows[place].place, reason))) from fault
            yield [row.as_dict() for row in rows], batch

    def _row(self, index: int) -> Row:
        if self._held:
            return self._held[index]
        try:
            return self._read(index)
        except DataError as error:  # the file has changed since it was checked
            place = self._reader.place(index)
            raise DataError(str(BadRow.at(place, str(error)))) from error

    def _read(self, index: int) -> Row:
        place = self._reader.place(index)
        return Row(self._checks.read(self._reader[index], place), place)

    def _check(self) -> None:
        rows, bad, is_held = list[Row](), list[BadRow](), not is_large(self._reader)
        for index in range(len(self)):
            try:
                row = self._read(index)
                reason = _missing(row)
            except DataError as error:
                reason = str(error)
            if reason:
                bad.append(BadRow.at(self._reader.place(index), reason))
            elif is_held:
                rows.append(row)
        settle_bad_rows(bad, len(self), "error", 0.0, may_skip=False)
        self._held = rows


def _missing(row: Row) -> str:
    """Return what to say of a row whose picture is not there, else ``""``."""
    gone = {each.key for each in row.pictures if not each.is_there}
    for name, value in row.values.items():
        if getattr(value, "key", None) in gone:
            return f"{name} {str(value)!r} does not exist"
    return ""


def _place(key: Key) -> str:
    return ".".join(["--rows", *map(str, key[2:])])
