"""Rows of one split, and how some of them become a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from trainbus_data.collating import collated, picture_fault, with_place
from trainbus_data.images.open_image import ImageFault
from trainbus_data.rows.fingerprint import fingerprint_of
from trainbus_data.rows.reading import BadRow, Row
from trainbus_data.rows.row_sequence import ListedRows, RowSequence
from training.errors import DataError
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.reader import Reader

__all__ = ["RowsDataset", "WorkerDataError"]

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
