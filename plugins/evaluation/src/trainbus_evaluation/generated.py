"""Answers of generating models: as classes, and as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainbus_evaluation.shifting import IGNORED
from training import ConfigError
from training.plugin import echo_of, texts_of

#: Entries of a batch that only training feeds to the model.
_ANSWER_KEYS = ("labels", "decoder_input_ids", "decoder_attention_mask")


def question_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``generate`` takes: the batch without the answer."""
    return {name: value for name, value in batch.items() if name not in _ANSWER_KEYS}


def longest_answer(batch: Mapping[str, Any], processor: Any) -> int:
    """Return the most labels that an answer of a batch has; 0 without any.

    Args:
        batch: has (B, A) ``labels`` of answers, -100 or padding where nothing counts.
        processor: whose tokenizer tells what padding is.
    """
    labels = batch.get("labels")
    if not isinstance(labels, Tensor) or labels.ndim != 2 or not labels.numel():
        return 0
    tokenizer = getattr(processor, "tokenizer", processor)
    counted: Tensor = labels != IGNORED
    if (padding := getattr(tokenizer, "pad_token_id", None)) is not None:
        counted &= labels != padding
    return int(counted.sum(dim=1).max())


class AnswerClasses:
    """Gives each answer, as a sequence of token ids, the number of its class.

    Args:
        model: its configuration names the tokens that end an answer.
    """

    def __init__(self, model: nn.Module) -> None:
        self._generate = getattr(model, "generate", None)
        self._ends = _end_ids(model)
        self._numbers: dict[tuple[int, ...], int] = {}

    @property
    def is_usable(self) -> bool:
        """Whether the model can generate."""
        return callable(self._generate)

    def names(self) -> list[tuple[int, ...]]:
        """Return the answers in the order of their numbers."""
        return list(self._numbers)

    def renumbered(
        self, names: Sequence[list[tuple[int, ...]]]
    ) -> list[Callable[[Tensor], Tensor]]:
        """Return for each process what gives its answers numbers that all share.

        Args:
            names: of each process, as ``names`` returned them; without any, classes
                are numbers of the model's own and stay.
        """
        if not any(names):
            return [lambda classes: classes for _ in names]
        numbers: dict[tuple[int, ...], int] = {}
        known = [[numbers.setdefault(n, len(numbers)) for n in own] for own in names]
        kept = [torch.tensor(each, dtype=torch.int64) for each in known]
        return [partial(torch.index_select, each, 0) for each in kept]

    def of(self, batch: Mapping[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted and true classes, each (B,), int64, on the host.

        Args:
            batch: on the device.
            labels: of the batch, on the host: each read there costs no wait.

        Decoding is greedy and may be as long as the longest label: a longer answer
        would be wrong anyway. The start token, where labels carry it, is left out.
        """
        assert callable(self._generate)
        generated: Tensor = self._generate(
            **question_of(batch),
            max_new_tokens=max(1, labels.shape[1]),
            num_beams=1,
            do_sample=False,
        )
        rows = generated.tolist()  # one wait for the device
        start = rows[0][0]
        predicted = [self._number(row[1:]) for row in rows]
        target = []
        for row in labels.tolist():
            ids = [token for token in row if token != IGNORED]
            target.append(self._number(ids[1:] if ids[:1] == [start] else ids))
        return torch.tensor(predicted), torch.tensor(target)

    def _number(self, ids: list[int]) -> int:
        end = next((i for i, token in enumerate(ids) if token in self._ends), len(ids))
        return self._numbers.setdefault(tuple(ids[:end]), len(self._numbers))


class AnswerTexts:
    """Turns token ids into answers and answers into what decoding gives back.

    Args:
        processor: has ``batch_decode`` and a ``tokenizer``, or is a tokenizer.
    Raises:
        ConfigError: it has neither.
    """

    def __init__(self, processor: Any) -> None:
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if not callable(self.tokenizer) or not hasattr(self.tokenizer, "batch_decode"):
            raise ConfigError(
                f"processor is {type(processor).__name__}, which has no tokenizer; "
                "pass what load_model(..., load_processor=True) returns"
            )
        self._references: dict[str, tuple[str, str]] = {}

    def decode(self, ids: Tensor | list[list[int]]) -> list[str]:
        """Return the texts of (B, T) token ids, without special tokens."""
        return texts_of(self.tokenizer, ids)

    def of_labels(self, labels: Tensor) -> list[str]:
        """Return the texts of labels (B, T) with -100 where nothing counts."""
        rows = [[token for token in row if token != IGNORED] for row in labels.tolist()]
        return self.decode(rows)

    def reference(self, answer: str, labels: Tensor, row: int) -> str:
        """Return what a model that knows ``answer`` would be decoded to.

        Args:
            answer: as the row has it.
            labels: (B, T) of the batch, which whoever made it read from the answers:
                with a special token in one as text, or as the tokenizer does.
            row: which of them are the answer's; looked at where the two differ.
        """
        if answer not in self._references:
            self._references[answer] = (
                echo_of(self.tokenizer, answer),
                echo_of(self.tokenizer, answer, split_special_tokens=True),
            )
        usual, split = self._references[answer]
        if usual == split:
            return usual
        return split if self.of_labels(labels[row : row + 1]) == [split] else usual


def _end_ids(model: nn.Module) -> frozenset[int]:
    """Return the ids that end or pad an answer, from where the model keeps them."""
    config = getattr(model, "config", None)
    for part in ("text_config", "decoder"):
        config = getattr(config, part, None) or config
    ids: set[Any] = set()
    for place in (config, getattr(model, "generation_config", None)):
        end = getattr(place, "sep_token_id", None)
        end = getattr(place, "eos_token_id", None) if end is None else end
        for value in (end, getattr(place, "pad_token_id", None)):
            ids.update(value if isinstance(value, (list, tuple)) else [value])
    return frozenset(value for value in ids if isinstance(value, int))
