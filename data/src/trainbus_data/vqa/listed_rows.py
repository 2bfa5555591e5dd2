"""Rows held in memory: all checked, pictures included, before training starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.pixels import PixelStore
from trainbus_data.rows.reading import BadRow, Row, read_rows, settle_bad_rows
from trainbus_data.vqa.dataset import ListedVQADataset
from trainbus_data.vqa.tokens import TokenTable

if TYPE_CHECKING:
    from trainbus_data.config import DataConfig

__all__ = ["list_rows", "make_store", "make_tables", "with_good_images"]


def list_rows(path: Path, config: DataConfig) -> list[Row]:
    """Return the usable rows of a file whose image is there.

    Raises:
        DataError: a row cannot be used and ``config`` does not bear it.
    """
    rows, bad = read_rows(path, config.root)
    is_there = {image: os.path.isfile(image) for image in {r.image_path for r in rows}}
    bad += [
        BadRow(path, row.line, f"image {row.image!r} does not exist")
        for row in rows
        if not is_there[row.image_path]
    ]
    return _without(rows, bad, config)


def make_store(images: list[str], processor: Any, config: DataConfig) -> PixelStore:
    """Return the pixels of ``images``, none of them decoded yet."""
    return PixelStore(
        images,
        processor.image_processor,
        config.cache_mb,
        config.max_image_pixels,
        config.image_size,
    )


def with_good_images(
    path: Path, rows: list[Row], store: PixelStore, config: DataConfig
) -> list[Row]:
    """Return the rows whose image can be decoded; the first are, under ``skip`` all.

    Raises:
        DataError: one cannot, and ``config`` does not bear it.
    """
    numbers = {image: number for number, image in enumerate(store.paths)}
    should_decode_all = config.on_bad_row == "skip"
    faults: dict[str, str] = {}
    for image in dict.fromkeys(row.image_path for row in rows):
        number = numbers[image]
        if should_decode_all or number < store.num_eager:
            try:
                store.load(number)
            except ImageFault as fault:
                faults[image] = str(fault)
    bad = [
        BadRow(path, row.line, f"image {row.image!r} {faults[row.image_path]}")
        for row in rows
        if row.image_path in faults
    ]
    return _without(rows, bad, config)


def make_tables(
    path: Path,
    rows: list[Row],
    store: PixelStore,
    processor: Any,
    start_token_id: int,
    config: DataConfig,
) -> ListedVQADataset:
    """Return the data set of one split, its texts tokenised."""
    numbers: Mapping[str, int] = {
        image: number for number, image in enumerate(store.paths)
    }
    questions = TokenTable(
        [row.question for row in rows],
        processor.tokenizer,
        config.max_question_length,
        "question",
    )
    answers = TokenTable(
        [row.answer for row in rows],
        processor.tokenizer,
        config.max_answer_length,
        "answer",
    )
    images = [numbers[row.image_path] for row in rows]
    return ListedVQADataset(
        rows, path, store, images, questions, answers, start_token_id
    )


def _without(rows: list[Row], bad: list[BadRow], config: DataConfig) -> list[Row]:
    lines = {row.line for row in rows} | {row.line for row in bad}
    bad.sort(key=lambda row: row.line)
    settle_bad_rows(bad, len(lines), config.on_bad_row, config.max_bad_fraction)
    unusable = {row.line for row in bad}
    return [row for row in rows if row.line not in unusable]
