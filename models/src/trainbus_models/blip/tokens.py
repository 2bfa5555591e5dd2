"""Token ids of texts, each distinct text tokenised once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from training.messages.tables import count
from training.recipes.answer_texts import token_ids

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
        name: what the texts are, for warnings.
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
        """Tokenise texts ahead, and warn where some are cut, or not in the vocabulary.

        Args:
            texts: of a split's rows.
            split: its name, for the warning.
        """
        unique = list(dict.fromkeys(texts))
        of_all = f"of {count(len(unique), f'distinct {self._name}')}"
        of_all += f" of {split}" if split else ""
        full: list[str] = []
        unknown: list[str] = []
        for start in range(0, len(unique), CHUNK):
            chunk = unique[start : start + CHUNK]
            ids, mask = self.of(chunk)
            full += compress(chunk, (mask.sum(dim=1) == self._max_length).tolist())
            unknown += compress(chunk, self._are_unknown(ids).tolist())
        self._warn_of_cut(full, of_all)
        if unknown:
            logger.warning(
                "the tokenizer has no tokens for text in %d %s, such as %.60r: it is "
                "read as %s, whatever it is; use a model whose vocabulary has it, or a "
                "larger model.build.vocab_size",
                *(len(unknown), of_all, unknown[0], self._tokenizer.unk_token),
            )

    def _are_unknown(self, ids: Tensor) -> Tensor:
        """Return, for each row of (B, T) tokens, whether an unknown one is there."""
        unknown = self._tokenizer.unk_token_id
        return (ids == (-1 if unknown is None else unknown)).any(dim=1)

    def _warn_of_cut(self, full: list[str], of_all: str) -> None:
        """Warn of those that are longer than what is kept.

        Args:
            full: all of them, and maybe some that just fit.
            of_all: how many texts there are.
        """
        if not full:
            return
        needed = [len(token_ids(self._tokenizer, text)) for text in full]
        num_cut = sum(length > self._max_length for length in needed)
        if num_cut:
            logger.warning(
                "model.max_%s_length is %s, which cuts %d %s; the longest has %d",
                *(
                    self._name,
                    count(self._max_length, "token"),
                    num_cut,
                    of_all,
                    max(needed),
                ),
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
            split_special_tokens=True,  # a "[SEP]" of a row is text, and ends none
        )
        first, end = len(self._row_of), len(self._row_of) + len(new)
        while end > len(self._ids):
            self._ids = torch.cat([self._ids, torch.zeros_like(self._ids)])
            self._mask = torch.cat([self._mask, torch.zeros_like(self._mask)])
        self._ids[first:end] = made["input_ids"].int()
        self._mask[first:end] = made["attention_mask"].bool()
        self._row_of.update((text, first + n) for n, text in enumerate(new))
