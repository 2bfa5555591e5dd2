"""Rows made into a batch, and which of them is to blame where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.picture import Picture
from trainbus_data.rows.reading import NUM_SHOWN, BadRow, Row
from training.errors import DataError
from training.messages.error_texts import add_note
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily

__all__ = ["collated", "picture_fault", "places_of", "with_place"]


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
