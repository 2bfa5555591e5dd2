"""Token tables: each distinct text is tokenised once, then looked up by number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenTable"]

logger = logging.getLogger(__name__)

CHUNK = 4096


class TokenTable:
    """The tokens of many texts, each distinct text stored once.

    Args:
        texts: one per row, in row order.
        tokenizer: as AutoProcessor loads it.
        max_length: tokens kept, special ones included; longer texts are cut.
        name: what the texts are, for the warning about cut ones.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Any, max_length: int, name: str
    ) -> None:
        number: dict[str, int] = {}
        self.text_of_row = torch.tensor(
            [number.setdefault(text, len(number)) for text in texts]
        )
        unique = list(number)
        shape = (len(unique), max_length)
        # int32: half the memory of what the model will get.
        self._ids = torch.zeros(shape, dtype=torch.int32)
        self._mask = torch.zeros(shape, dtype=torch.bool)
        for start in range(0, len(unique), CHUNK):
            chunk = tokenizer(
                unique[start : start + CHUNK],
                padding="max_length",
                max_length=max_length,
                truncation=True,
                return_tensors="pt",
            )
            self._ids[start : start + CHUNK] = chunk["input_ids"]
            self._mask[start : start + CHUNK] = chunk["attention_mask"].bool()
        self._lengths = self._mask.sum(dim=1)
        self._warn_of_cuts(unique, tokenizer, max_length, name)

    def rows(self, rows: Tensor, trim: bool = False) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of some rows, each (B, max_length), int64.

        Args:
            rows: row numbers, (B,), int64.
            trim: cut the columns that are padding in every one of these rows.
        """
        texts = self.text_of_row[rows]
        ids, mask = self._ids[texts], self._mask[texts]
        if trim:
            width = int(self._lengths[texts].max())
            ids, mask = ids[:, :width], mask[:, :width]
        return ids.long(), mask.long()

    def _warn_of_cuts(
        self, unique: list[str], tokenizer: Any, max_length: int, name: str
    ) -> None:
        full = [
            text
            for text, length in zip(unique, self._lengths.tolist(), strict=True)
            if length == max_length
        ]
        if not full:
            return
        lengths = [len(ids) for ids in tokenizer(full)["input_ids"]]
        num_cut = sum(length > max_length for length in lengths)
        if num_cut:
            logger.warning(
                "data.max_%s_length is %d tokens, which cuts %d of %d distinct %ss; "
                "the longest has %d",
                name, max_length, num_cut, len(unique), name, max(lengths),
            )  # fmt: skip
