"""Token ids of texts, each distinct text tokenised once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenCache"]

logger = logging.getLogger(__name__)

#: Distinct texts whose tokens are remembered, in each process.
MAX_TEXTS = 1 << 16
CHUNK = 4096


class TokenCache:
    """Tokens of texts, all of one length; the latest distinct texts are remembered.

    Args:
        tokenizer: as AutoProcessor loads it.
        max_length: tokens kept, special ones included; longer texts are cut.
        name: what the texts are, for the warning about cut ones.
    """

    def __init__(self, tokenizer: Any, max_length: int, name: str) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._name = name
        #: text -> its row in the two tables, which grow by doubling.
        self._row_of: dict[str, int] = {}
        # int32 and bool: a third of what the model will get.
        self._ids = torch.zeros((1024, max_length), dtype=torch.int32)
        self._mask = torch.zeros((1024, max_length), dtype=torch.bool)

    def of(self, texts: Sequence[str], trim: bool = False) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of some texts, each (B, max_length), int64.

        Args:
            texts: B texts.
            trim: cut the columns that are padding in every one of them.
        """
        self._add(texts)
        rows = torch.tensor([self._row_of[text] for text in texts])
        ids, mask = self._ids[rows], self._mask[rows]
        if trim:
            width = int(mask.sum(dim=1).max())
            ids, mask = ids[:, :width], mask[:, :width]
        return ids.long(), mask.long()

    def prepare(self, texts: Iterable[str], split: str = "") -> None:
        """Tokenise texts ahead, and warn where some of them are cut.

        Args:
            texts: of a split's rows.
            split: its name, for the warning.
        """
        unique = list(dict.fromkeys(texts))
        full: list[str] = []
        for start in range(0, len(unique), CHUNK):
            chunk = unique[start : start + CHUNK]
            lengths = self.of(chunk)[1].sum(dim=1).tolist()
            pairs = zip(chunk, lengths, strict=True)
            full += [text for text, length in pairs if length == self._max_length]
        if not full:
            return
        needed = [len(ids) for ids in self._tokenizer(full)["input_ids"]]
        num_cut = sum(length > self._max_length for length in needed)
        if num_cut:
            logger.warning(
                "model.max_%s_length is %d tokens, which cuts %d of %d distinct %ss%s; "
                "the longest has %d",
                *(self._name, self._max_length, num_cut, len(unique), self._name),
                f" of {split}" if split else "",
                max(needed),
            )

    def _add(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._row_of]
        if not new:
            return
        if len(self._row_of) + len(new) > MAX_TEXTS:
            self._row_of, new = {}, list(dict.fromkeys(texts))
        made = self._tokenizer(
            new,
            padding="max_length",
            max_length=self._max_length,
            truncation=True,
            return_tensors="pt",
        )
        first, end = len(self._row_of), len(self._row_of) + len(new)
        while end > len(self._ids):
            self._ids = torch.cat([self._ids, torch.zeros_like(self._ids)])
            self._mask = torch.cat([self._mask, torch.zeros_like(self._mask)])
        self._ids[first:end] = made["input_ids"].int()
        self._mask[first:end] = made["attention_mask"].bool()
        self._row_of.update((text, first + n) for n, text in enumerate(new))
