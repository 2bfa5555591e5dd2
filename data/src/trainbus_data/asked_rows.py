"""Many rows that a person asks about: a file of them, answered in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from trainbus_data.collating import collated, picture_fault, places_of
from trainbus_data.data_pipeline import NUM_SHOWN
from trainbus_data.images.open_image import ImageFault
from trainbus_data.readers.choose import open_reader
from trainbus_data.rows.field_names import look, refuse_absent
from trainbus_data.rows.indexed_rows import is_large
from trainbus_data.rows.reading import BadRow, Row, read_row, settle_bad_rows
from trainbus_data.rows.row_checks import RowChecks, required_fields
from training.documents.document import Key
from training.errors import DataError
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.task import Task

__all__ = ["AskedRows"]


class AskedRows:
    """The rows of a file, which need not have the task's target.

    All are checked at once, so that a mistake in them shows before a model exists.
    Those of up to ``HELD_MB`` are kept then; more stay where they are, and are read
    again as they are asked for. Files that rows name are relative to where the rows
    lie, as in training, and may lie anywhere.

    A row that turns out to be unusable while the others are answered, such as one of a
    picture that cannot be decoded, costs none of their predictions: it is left out, and
    ``settle`` says so in the end.

    Args:
        source: a path, or one reader's name over its options.
        task: says what a row holds.
        names: field -> what the file calls it, where that differs.
        max_pixels: a picture with more is refused.
        on_bad_row: ``error`` or ``skip``, as of the run's data.
        max_bad_fraction: share of bad rows that ``skip`` bears.
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
        on_bad_row: Literal["error", "skip"] = "error",
        max_bad_fraction: float = 0.0,
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
            # Test sets write "", null or [] where others have the target.
            unread={task.target, task.instead.get(task.target, task.target)},
        )
        self._target = task.target
        self._policy = on_bad_row, max_bad_fraction
        #: Those that can be used, by number; empty where they are too many.
        self._held: dict[int, Row] = {}
        self._shown: list[Row] = []
        self._under_way: list[Row] = []
        self._bad = self._check()
        self._num_early = len(self._bad)
        self._settle()

    @property
    def num_bad(self) -> int:
        """Rows that could not be used so far."""
        return len(self._bad)

    @property
    def under_way(self) -> str:
        """Where the rows stand of the batch that was yielded last."""
        return places_of(self._under_way)

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
            DataError: no row can be used; names their places.
        """
        # Before any is answered, as those of a run: it warns of texts that will be cut.
        family.prepare(processor, [self._asked(row) for row in self._shown])
        usable = (index for index in range(len(self)) if index not in self._bad)
        num_answered = 0
        while chunk := list(islice(usable, size)):
            rows = self._read_all(chunk)
            made = self._collated(family, processor, rows) if rows else ()
            for answerable, batch in made:
                self._under_way = [row for _, row in answerable]
                yield [row.as_dict() for row in self._under_way], batch
                num_answered += len(answerable)
        if not num_answered:
            self._settle()

    def settle(self) -> None:
        """Refuse the rows that could not be answered, or warn of them as of any others.

        Raises:
            DataError: lists them, with their places.
        """
        if len(self._bad) > self._num_early:
            self._settle()

    def _settle(self) -> None:
        bad = [self._bad[index] for index in sorted(self._bad)]
        settle_bad_rows(bad, len(self), *self._policy, may_skip=False)

    def _collated(
        self, family: ModelFamily, processor: Any, rows: list[tuple[int, Row]]
    ) -> Iterator[tuple[list[tuple[int, Row]], Batch]]:
        """Yield rows, with their numbers, and their batch: one, where all can be used.

        Else each that can be used alone, which costs time and changes no prediction.
        """
        some = [row for _, row in rows]
        try:
            batch = collated(family, processor, some, self._asked)
        except (ImageFault, DataError) as error:
            if len(rows) > 1:
                for each in rows:
                    yield from self._collated(family, processor, [each])
            else:
                self._leave_out(*rows[0], error)
        else:
            yield rows, batch

    def _asked(self, row: Row) -> dict[str, Any]:
        return {name: v for name, v in row.values.items() if name != self._target}

    def _leave_out(self, index: int, row: Row, error: Exception) -> None:
        reason = str(error)
        if isinstance(error, ImageFault):
            _, reason = picture_fault([row], error)
        self._bad[index] = BadRow(row.place, reason)

    def _read_all(self, indices: Iterable[int]) -> list[tuple[int, Row]]:
        """Return the rows of these numbers that are still as they were checked."""
        rows = []
        for index in indices:
            row = self._held.get(index) or self._read(index)
            if isinstance(row, BadRow):  # the file has changed
                self._bad[index] = row
            else:
                rows.append((index, row))
        return rows

    def _read(self, index: int) -> Row | BadRow:
        return read_row(self._reader, self._checks, index)

    def _check(self) -> dict[int, BadRow]:
        bad, is_held = dict[int, BadRow](), not is_large(self._reader)
        for index in range(len(self)):
            row = self._read(index)
            if isinstance(row, Row):
                gone = {p.key: why for p in row.pictures if (why := p.absence)}
                row = BadRow(row.place, row.told_of(gone)) if gone else row
            if isinstance(row, BadRow):
                bad[index] = row
                continue
            if is_held:
                self._held[index] = row
            if len(self._shown) < NUM_SHOWN:
                self._shown.append(row)
        return bad


def _place(key: Key) -> str:
    return ".".join(["--rows", *map(str, key[2:])])
