"""Prompts padded on the left, and behind them answers padded on the right.

So training reads exactly the prompt that generation reads, one prompt width a batch.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus_models.chat.turns import render
from training.errors import ConfigError, DataError
from training.messages.tables import count

__all__ = [
    "answer_ids",
    "end_ids",
    "prompt_of",
    "read_prompts",
    "refuse_picture_tokens",
    "warn_of_special_tokens",
    "with_answers",
]

logger = logging.getLogger(__name__)

#: What a processor calls the tokens that stand for a picture, as far as it has them.
PICTURE_TOKENS = ("image_token", "boi_token")
#: The label of a token that is not learnt.
IGNORED = -100


def end_ids(processor: Any) -> list[int]:
    """Return the ids that end an answer: the turn's, and the text's.

    Raises:
        ConfigError: neither the template nor the tokenizer has one.
    """
    tokenizer = processor.tokenizer
    _, tails = render(processor, [""], ["x"])
    special = _special_tokens(tokenizer)
    ids = tokenizer(tails[0], add_special_tokens=False)["input_ids"]
    found = [token for token in ids if token in special][:1]
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise ConfigError(
            "the tokenizer has no end token and the chat template writes none, so that "
            "no answer would end; set the tokenizer's eos_token"
        )
    return list(dict.fromkeys(found))


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    added = tokenizer.added_tokens_decoder.items()
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return {n: str(token) for n, token in added if token.special} | dict(named)


def refuse_picture_tokens(processor: Any, texts: Iterable[str]) -> None:
    """Refuse a text that has the token of a picture in it: there is no other picture.

    Raises:
        DataError: says which, and of what text.
    """
    own = {str(getattr(processor, name, None) or "") for name in PICTURE_TOKENS}
    for text in texts:
        for token in sorted(own - {""}):
            if token in text:
                raise DataError(
                    f"the text {text[:60]!r} has {token!r} in it, which stands for the "
                    "picture; take it out: the chat template writes it where the "
                    "picture belongs"
                )


def warn_of_special_tokens(
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    fields: Sequence[str],
    split: str,
) -> None:
    """Warn of texts that are not read as they are written, with their number.

    Args:
        tokenizer: reads its special tokens in any text.
        rows: of a split.
        fields: the texts that are read, of those that a row has.
        split: its name, for the warning.
    """
    special = _special_tokens(tokenizer).values()
    pattern = re.compile("|".join(re.escape(token) for token in special if token))
    num_told = 0
    first: tuple[str, ...] = ()
    for row in rows:
        for name in fields:
            text = str(row.get(name, ""))
            found = pattern.search(text)
            if found and found[0]:
                num_told += 1
                first = first or (found[0], name, text)
                break
    if first:
        logger.warning(
            "a special token of the model's is in a text of %d of %s%s, such as %r "
            "in the %s %.60r: it is read as that token and not as text, and nothing of "
            "an answer is learnt behind one that ends it; write it otherwise",
            *(
                num_told,
                count(len(rows), "row"),
                f" of {split}" if split else "",
                *first,
            ),
        )


def read_prompts(
    processor: Any, prompts: Sequence[str], pictures: Sequence[Any]
) -> dict[str, Tensor]:
    """Return the model's arguments for B prompts of one picture each.

    Those of shape (B, P), such as ``input_ids`` and ``attention_mask``, are padded on
    the left.
    """
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token
    # Whoever writes the start token, there must be one.
    is_written = start is not None and prompts[0].startswith(start)
    made = processor(
        text=list(prompts),
        images=[[picture] for picture in pictures],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=not is_written,
    )
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def answer_ids(
    processor: Any, answers: Sequence[str], ends: Sequence[int]
) -> list[list[int]]:
    """Return the tokens of each answer, up to and with its end token.

    Args:
        processor: has a ``tokenizer``.
        answers: what the template writes after the prompt.
        ends: as ``end_ids`` returns them; the first is appended where there is none.
    """
    made = processor.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [_until_end(ids, ends) for ids in made]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return [*ids, ends[0]]


def with_answers(
    prompt: Mapping[str, Tensor], answers: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Return the arguments of training: each answer behind its prompt, and labels.

    Args:
        prompt: as ``read_prompts`` returns it, (B, P).
        answers: B lists of tokens; an empty one is not learnt.
    Returns:
        The same names, those of shape (B, P) as (B, P + A), and ``labels`` (B, P + A),
        int64: the answers' tokens, -100 elsewhere.
    """
    ids = prompt["input_ids"]
    longest = max(map(len, answers))
    shape = (len(ids), longest)
    tokens = ids.new_zeros(shape)
    is_real = torch.zeros(shape, dtype=torch.bool)
    for row, answer in enumerate(answers):
        tokens[row, : len(answer)] = torch.tensor(answer, dtype=ids.dtype)
        is_real[row, : len(answer)] = True
    added = {"input_ids": tokens, "attention_mask": is_real.to(ids.dtype)}
    made = {}
    for name, value in prompt.items():
        if value.shape == ids.shape:
            # Such as token types: an answer is plain text, which is 0 there.
            more = added.get(name, value.new_zeros(shape))
            value = torch.cat([value, more.to(value.dtype)], dim=1)
        made[name] = value
    hidden = torch.full_like(ids, IGNORED)
    made["labels"] = torch.cat([hidden, tokens.masked_fill(~is_real, IGNORED)], dim=1)
    return made


def prompt_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the prompts (B, P) that a batch of training begins with.

    Args:
        batch: as ``with_answers`` or ``read_prompts`` returned it.
    """
    labels = batch.get("labels")
    if labels is None:
        return dict(batch)
    is_learnt = (labels != IGNORED).any(dim=0)
    width = int(is_learnt.int().argmax())  # the first column; waits for the device
    shape = labels.shape
    return {
        name: value[:, :width] if value.shape == shape else value
        for name, value in batch.items()
        if name != "labels"
    }
