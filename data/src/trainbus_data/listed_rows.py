"""Rows held in memory: all checked, pictures included, before training starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainbus_data.collating import collated, picture_fault, with_place
from trainbus_data.config import MIB, DataConfig
from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.picture import Picture
from trainbus_data.rows.reading import BadRow, Row, read_all, settle_bad_rows
from trainbus_data.rows.row_checks import RowChecks
from trainbus_data.rows.row_sequence import ListedRows
from training.errors import DataError
from training.recipes.family import ModelFamily
from training.recipes.reader import Reader

__all__ = ["list_rows", "with_good_pictures"]

#: Pixels that are decoded ahead, each a byte: a second or two.
EAGER_BYTES = 64 * MIB
CHUNK = 64


def list_rows(
    reader: Reader, checks: RowChecks, config: DataConfig, looks: bool
) -> ListedRows:
    """Return the usable rows of a reader whose pictures are there.

    Args:
        reader: of the file.
        checks: of its rows.
        config: says which bad rows are borne.
        looks: whether the files of pictures must look whole as well.
    Raises:
        DataError: a row cannot be used and ``config`` does not bear it.
    """
    rows, bad = read_all(reader, checks)
    pictures = {p.key: p for row in rows for p in row.pictures}
    told = {key: _fault(picture, looks) for key, picture in pictures.items()}
    faults = {key: fault for key, fault in told.items() if fault}
    return _without(rows, [*bad, *_bad_by(faults, rows)], len(reader), config)


def _fault(picture: Picture, looks: bool) -> str:
    """Return why a picture cannot be used, as far as that is quickly seen."""
    absence = picture.absence
    if looks and not absence:
        try:
            picture.look()
        except ImageFault as fault:
            return str(fault)
    return absence


def with_good_pictures(
    rows: Sequence[Row],
    num_rows: int,
    family: ModelFamily,
    processor: Any,
    config: DataConfig,
) -> ListedRows:
    """Return the rows whose pictures can be decoded; the first are, under ``skip`` all.

    What the family keeps of them is there when training starts.

    Args:
        rows: those of a file that were not left out before.
        num_rows: of the file.
        family: makes batches.
        processor: what it takes.
        config: says which bad rows are borne; those that were left out count as well.
    Raises:
        DataError: one cannot, and ``config`` does not bear it.
    """
    eager = min(EAGER_BYTES, config.cache_mb * MIB)
    most = math.inf if config.on_bad_row == "skip" else eager
    left = _first_of_each_picture(rows)
    faults: dict[str, str] = {}
    while left and most > 0:
        chunk, left = left[:CHUNK], left[CHUNK:]
        most -= _decode(chunk, family, processor, faults)
    return _without(rows, _bad_by(faults, rows), num_rows, config)


def _decode(
    rows: list[Row], family: ModelFamily, processor: Any, faults: dict[str, str]
) -> int:
    """Make a batch of the rows that can be one; return the numbers in it.

    Args:
        rows: some, each with a picture.
        family: makes batches.
        processor: what it takes.
        faults: key of a picture -> why it cannot be used; gets those that are found.
    """
    while rows:
        try:
            batch = collated(family, processor, rows)
        except ImageFault as fault:
            place, _ = picture_fault(rows, fault)
            keys = {picture.key for picture in rows.pop(place).pictures}
            own = {getattr(fault.picture, "key", "")}
            faults.update(dict.fromkeys(own & keys or keys, str(fault)))
        except DataError as error:
            raise with_place(error, rows, family, processor) from error
        else:
            return sum(v.numel() for v in batch.values() if v.is_floating_point())
    return 0


def _bad_by(faults: Mapping[str, str], rows: Sequence[Row]) -> list[BadRow]:
    """Return the rows with a picture that is among ``faults``."""
    return [BadRow(r.place, told) for r in rows if (told := r.told_of(faults))]


def _first_of_each_picture(rows: Sequence[Row]) -> list[Row]:
    seen: set[str] = set()
    first = []
    for row in rows:
        keys = {picture.key for picture in row.pictures}
        if not keys <= seen:
            first.append(row)
            seen |= keys
    return first


def _without(
    rows: Sequence[Row], bad: list[BadRow], num_rows: int, config: DataConfig
) -> ListedRows:
    """Return the rows of a file that are not among the bad ones, if those are borne."""
    unusable = {row.place: row for row in reversed(bad)}  # each once
    bad = sorted(unusable.values(), key=lambda row: _in_order(row.line))
    left = [row for row in rows if row.place not in unusable]
    policy = config.on_bad_row, config.max_bad_fraction
    num_before = num_rows - len(left) - len(bad)
    settle_bad_rows(bad, num_rows, *policy, num_before=num_before)
    return ListedRows(left)


def _in_order(line: int | str) -> str:
    """Return a place such as 12 or ``#12``, by which #2 sorts before #12."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), str(line))
