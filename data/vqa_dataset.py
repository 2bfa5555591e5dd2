"""Rows of one split, and how some of them become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from data.images import ImageFault
from data.pixels import PixelStore
from data.rows import Row
from data.tokens import TokenTable
from data.vqa_batch import VQABatch
from training.errors import DataError

__all__ = ["VQADataset"]


class VQADataset(Dataset[int]):
    """A split whose items are row numbers; ``collate`` makes a batch of some.

    A batch is put together in one go from tables, so that it costs a fraction of a
    millisecond; there is no randomness in it.

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
        self.rows = [row.as_dict() for row in rows]
        self._lines = [row.line for row in rows]
        self._path = path
        self._store = store
        self._image_of_row = list(image_of_row)
        self._questions = questions
        self._answers = answers
        self._start_token_id = start_token_id

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < len(self.rows):
            raise IndexError(f"row {index} of {len(self.rows)}")
        return index

    def collate(self, indices: Sequence[int]) -> VQABatch:
        """Return the batch of some rows.

        Raises:
            DataError: an image cannot be decoded; names row and file.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        question_ids, question_mask = self._questions.rows(rows)
        answer_ids, answer_mask = self._answers.rows(rows, trim=True)
        answer_ids[:, 0] = self._start_token_id
        labels = answer_ids.masked_fill(answer_mask == 0, -100)
        tensors = {
            "pixel_values": self._pixels(indices),
            "input_ids": question_ids,
            "attention_mask": question_mask,
            "decoder_input_ids": answer_ids,
            "decoder_attention_mask": answer_mask,
            "labels": labels,
        }
        # The model predicts each token from those before it: the first is no target.
        weight = int(answer_mask[:, 1:].sum())
        return VQABatch(tensors, [self.rows[index] for index in indices], weight)

    def _pixels(self, indices: Sequence[int]) -> torch.Tensor:
        images = [self._image_of_row[index] for index in indices]
        try:
            return self._store.get(images)
        except ImageFault as fault:
            reason, image = fault.args
            index = indices[images.index(image)]
            raise DataError(self._complain(index, reason)) from fault

    def _complain(self, index: int, reason: str) -> str:
        name: Any = self.rows[index]["image"]
        return f"{self._path}:{self._lines[index]}: image {name!r} {reason}"
