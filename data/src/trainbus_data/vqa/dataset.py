"""Rows of one split, and how some of them become a batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.pixels import PixelStore
from trainbus_data.rows.indexed_rows import IndexedRows
from trainbus_data.rows.reading import BadRow, Row
from trainbus_data.vqa.batch import VQABatch
from trainbus_data.vqa.streamed import StreamedPixels, StreamedTokens
from trainbus_data.vqa.tokens import TokenTable
from training.errors import DataError

__all__ = ["IndexedVQADataset", "ListedVQADataset", "VQADataset"]

#: Rows, or up to twice as many, that tell one data set from another.
NUM_LOOKED_AT = 1000
#: Question tokens and mask, answer tokens and mask, each (B, T), int64.
Tokens = tuple[Tensor, Tensor, Tensor, Tensor]


class VQADataset(Dataset[int]):
    """A split whose items are row numbers; ``collate`` makes a batch of some.

    A batch is put together in one go, so that it costs a fraction of a millisecond.

    Args:
        num_rows: rows of the split.
        start_token_id: what the model's ``generate`` starts an answer from.
    """

    #: Loading a sample draws no random number, so that nothing need be seeded for it.
    is_deterministic = True

    def __init__(self, num_rows: int, start_token_id: int) -> None:
        self._num_rows = num_rows
        self._start_token_id = start_token_id

    def __len__(self) -> int:
        return self._num_rows

    @cached_property
    def fingerprint(self) -> str:
        """Tell this data from other data: a digest of up to 1,000 rows, evenly spread.

        Pixels are not looked at. Read once, in some 20 ms.
        """
        digest = hashlib.sha256(str(len(self)).encode())
        for index in range(0, len(self), max(1, len(self) // NUM_LOOKED_AT)):
            digest.update(json.dumps(self._row(index), sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def _row(self, index: int) -> dict[str, Any] | None:
        """Return one row, None if it cannot be used."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self._num_rows:
            raise IndexError(f"row {index} of {self._num_rows}")
        return index

    def collate(self, indices: Sequence[int]) -> VQABatch:
        """Return the batch of some rows.

        Raises:
            DataError: a row or an image cannot be used; names row and file.
        """
        rows, pixels, tokens = self._load(indices)
        question_ids, question_mask, answer_ids, answer_mask = tokens
        answer_ids[:, 0] = self._start_token_id
        labels = answer_ids.masked_fill(answer_mask == 0, -100)
        tensors = {
            "pixel_values": pixels,
            "input_ids": question_ids,
            "attention_mask": question_mask,
            "decoder_input_ids": answer_ids,
            "decoder_attention_mask": answer_mask,
            "labels": labels,
        }
        # The model predicts each token from those before it: the first is no target.
        weight = int(answer_mask[:, 1:].sum())
        return VQABatch(tensors, rows, weight)

    def _load(
        self, indices: Sequence[int]
    ) -> tuple[list[dict[str, Any]], Tensor, Tokens]:
        """Return rows, pixels (B, 3, H, W) and tokens of some rows."""
        raise NotImplementedError


class ListedVQADataset(VQADataset):
    """Rows, pixels and tokens looked up in tables; ``rows`` may be read.

    Args:
        rows: usable rows of one file.
        path: that file, for errors.
        store: pixels by image number.
        image_of_row: image number of each row.
        questions: question tokens by row.
        answers: answer tokens by row.
        start_token_id: what the model's ``generate`` starts an answer from.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        path: Path,
        store: PixelStore,
        image_of_row: Sequence[int],
        questions: TokenTable,
        answers: TokenTable,
        start_token_id: int,
    ) -> None:
        super().__init__(len(rows), start_token_id)
        self.rows = [row.as_dict() for row in rows]
        self._lines = [row.line for row in rows]
        self._path = path
        self._store = store
        self._image_of_row = list(image_of_row)
        self._questions = questions
        self._answers = answers

    def _row(self, index: int) -> dict[str, Any] | None:
        return self.rows[index]

    def _load(
        self, indices: Sequence[int]
    ) -> tuple[list[dict[str, Any]], Tensor, Tokens]:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        questions = self._questions.rows(rows)
        answers = self._answers.rows(rows, trim=True)
        images = [self._image_of_row[index] for index in indices]
        try:
            pixels = self._store.get(images)
        except ImageFault as fault:
            index = indices[images.index(fault.number)]
            reason = f"image {self.rows[index]['image']!r} {fault}"
            bad = BadRow(self._path, self._lines[index], reason)
            raise DataError(str(bad)) from fault
        listed = [self.rows[index] for index in indices]
        return listed, pixels, (*questions, *answers)


class IndexedVQADataset(VQADataset):
    """Rows read from their file when a batch needs them, and made into tensors then.

    Args:
        rows: of one file.
        pixels: by image path.
        questions: question tokens by text.
        answers: answer tokens by text.
        start_token_id: what the model's ``generate`` starts an answer from.
    """

    def __init__(
        self,
        rows: IndexedRows,
        pixels: StreamedPixels,
        questions: StreamedTokens,
        answers: StreamedTokens,
        start_token_id: int,
    ) -> None:
        super().__init__(len(rows), start_token_id)
        self._rows = rows
        self._pixels = pixels
        self._questions = questions
        self._answers = answers

    def _row(self, index: int) -> dict[str, Any] | None:
        with contextlib.suppress(DataError):  # a batch that needs it will say so
            return self._rows[index]
        return None

    def _load(
        self, indices: Sequence[int]
    ) -> tuple[list[dict[str, Any]], Tensor, Tokens]:
        rows = [self._rows.row(index) for index in indices]
        questions = self._questions.of([row.question for row in rows])
        answers = self._answers.of([row.answer for row in rows], trim=True)
        try:
            pixels = self._pixels.get_paths([row.image_path for row in rows])
        except ImageFault as fault:
            row = rows[fault.number]
            bad = BadRow(self._rows.path, row.line, f"image {row.image!r} {fault}")
            raise DataError(str(bad)) from fault
        return [row.as_dict() for row in rows], pixels, (*questions, *answers)
