"""Rows of one split, and how some of them become a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.picture import Picture
from trainbus_data.rows.fingerprint import fingerprint_of
from trainbus_data.rows.reading import NUM_SHOWN, BadRow, Row
from trainbus_data.rows.row_sequence import ListedRows, RowSequence
from training.errors import DataError
from training.messages.error_texts import add_note
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.reader import Reader

__all__ = [
    "RowsDataset",
    "WorkerDataError",
    "collated",
    "picture_fault",
    "places_of",
    "with_place",
]

logger = logging.getLogger(__name__)


class WorkerDataError(DataError):
    """A ``DataError`` of a worker, which says the same in the main process.

    Torch makes an error of the same class there, of a text that is all of the worker's
    traceback, with what the error says at its end.
    """

    def __init__(self, text: str) -> None:
        own = f"\n{type(self).__module__}.{type(self).__qualname__}: "
        trace, _, sentence = text.rpartition(own)
        if trace:
            logger.debug("%s", text)
        super().__init__(sentence.removesuffix("\n") if trace else text)


class RowsDataset(Dataset[int]):
    """A split whose items are row numbers; ``collate`` makes a batch of some.

    Args:
        rows: all of them, or what reads them as they are asked for.
        family: makes batches.
        processor: what the family takes.
        reader: where the rows come from; workers do without it.
        split: which rows they are, for the family.
    """

    def __init__(
        self,
        rows: RowSequence,
        family: ModelFamily,
        processor: Any,
        reader: Reader | None = None,
        split: str = "",
    ) -> None:
        self._rows = rows
        self._reader = reader
        self._split = split
        self._family = family
        self._processor = processor
        #: Whether loading a sample draws no random number, so that nothing need be
        #: seeded for it.
        self.is_deterministic = family.is_deterministic

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[Mapping[str, Any]] | None:
        """The rows, where they are held in memory; not to be changed."""
        if not isinstance(self._rows, ListedRows):
            return None
        return [row.values for row in self._rows.rows]

    @cached_property
    def fingerprint(self) -> str:
        """Tell this data from other data: a digest of up to 1,000 rows, evenly spread.

        Pictures are not looked at. Read once, in some 20 ms.
        """
        return fingerprint_of(len(self), self._rows.__getitem__)

    @cached_property
    def source_fingerprint(self) -> str | None:
        """Tell this data's source from others, where its reader knows more than rows.

        None for a reader that says no more than a digest of its rows: what is trained
        on may be the same though they are called otherwise.
        """
        reader = self._reader
        given = getattr(reader, "fingerprint", None)
        if reader is None or given is None:
            return None
        own = fingerprint_of(len(reader), reader.__getitem__)
        return None if given == own else str(given)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return the batch of some rows.

        Raises:
            DataError: a row or a picture cannot be used; names its place. From a worker
                it comes with its sentence alone.
        """
        try:
            return self._collated([self._rows.row(index) for index in indices])
        except DataError as error:
            if get_worker_info() is None:
                raise
            raise WorkerDataError(str(error)) from error

    def _collated(self, rows: Sequence[Row]) -> Batch:
        self._family.split = self._split
        try:
            return collated(self._family, self._processor, rows)
        except ImageFault as fault:
            place, reason = picture_fault(rows, fault)
            row = BadRow(rows[place].place, reason)
            raise DataError(f"{row}; mend the picture, or leave out its row") from fault
        except DataError as error:
            raise with_place(error, rows, self._family, self._processor) from error


def collated(
    family: ModelFamily,
    processor: Any,
    rows: Sequence[Row],
    given: Callable[[Row], Mapping[str, Any]] = Row.as_dict,
) -> Batch:
    """Return the batch that a family makes of rows.

    What it raises that is no fault of theirs, so that no row can be left out for it,
    comes with a note of where they stand.

    Args:
        family: makes batches.
        processor: what it takes.
        rows: at least one.
        given: what the family is given of a row.
    """
    try:
        return family.collate(processor, [given(row) for row in rows])
    except (ImageFault, DataError):
        raise
    except Exception as error:
        alone = [(row, _raised(family, processor, given(row))) for row in rows]
        met = [row for row, own in alone if type(own) is type(error)]
        add_note(error, f"while a batch was made of {places_of(met or rows)}")
        raise


def _raised(
    family: ModelFamily, processor: Any, row: Mapping[str, Any]
) -> Exception | None:
    """Return what the row raises without any other beside it."""
    try:
        family.collate(processor, [row])
    except Exception as error:
        return error
    return None


def places_of(rows: Sequence[Row]) -> str:
    """Return where rows stand, as in ``"train.jsonl:7, 9"``."""
    lines: dict[str, list[str]] = {}
    for row in rows[:NUM_SHOWN]:
        path, _, line = row.place.rpartition(":")
        lines.setdefault(path, []).append(line)
    told = ", ".join(f"{path}:{', '.join(some)}" for path, some in lines.items())
    more = len(rows) - NUM_SHOWN
    return told + (f" and {more} more" if more > 0 else "")


def with_place(
    error: DataError, rows: Sequence[Row], family: ModelFamily, processor: Any
) -> DataError:
    """Return what a family says of a batch with the place of the row that it is about.

    That is the first row which is no batch alone; where each is, the error as it was.
    """
    for row in rows:
        own = _raised(family, processor, row.as_dict())
        if isinstance(own, DataError):  # else another fault than what is to be told
            return DataError(str(BadRow(row.place, str(own))))
    return error


def picture_fault(rows: Sequence[Row], fault: ImageFault) -> tuple[int, str]:
    """Return which of ``rows`` has the picture with that fault, and the reason.

    Where the fault names no picture that is the first row.
    """
    picture = fault.picture
    faults = {picture.key: fault} if isinstance(picture, Picture) else {}
    for place, row in enumerate(rows):
        if told := row.told_of(faults):
            return place, told
    return 0, f"or a row beside it has a picture that {fault}"
