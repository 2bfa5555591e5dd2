"""From token ids to text, as a person would write it."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["echo_of", "texts_of", "token_ids"]

#: What word pieces hold one by one, as BERT's own tokenizer has it: ideographs.
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
#: What is written against them without a blank: kana, digits, wide punctuation.
_BESIDE = "0-9\u3000-\u30ff\uff00-\uffef"
_LETTER, _ALNUM = r"[^\W\d_]", r"[^\W_]"
#: A text without an apostrophe that stands apart, or without a quotation mark.
_NO_SINGLE, _NO_DOUBLE = r"((?:[^']|(?<=\w)'(?=\w))*", r'([^"]*'
#: Blanks that hardly anybody writes, and what stands there; in this order.
_UNDONE = [
    (re.compile(pattern), written)
    for pattern, written in (
        (f"(?<=[{_IDEOGRAPH}]) (?=[{_IDEOGRAPH}{_BESIDE}])", ""),
        (f"(?<=[{_BESIDE}]) (?=[{_IDEOGRAPH}])", ""),
        (r"(?<=\S) (?=[.,?!])", ""),  # as the library's own clean-up
        (r"(?<=[(\[]) | (?=[)\]])", ""),
        # One pair of quotation marks, of which the first is no inches.
        (r'^((?:[^"]*[^"\d] )?)" ([^"]*) "(?=[^"]*$)', r'\1"\2"'),
        (r"^' ([^']*) '$", r"'\1'"),
        # Numbers: 10:30, 0.5, 6'2, 1,000 (but "red, white" and "1, 2"), $5, 50%, #1.
        (r"(?<=\d) ?([:.']) ?(?=\d)", r"\1"),
        (r"(?<!\d)(\d{1,3}), (?=\d{3}(?!\d))", r"\1,"),
        (r"\$ (?=[\d.])", "$"),
        (r"(?<![^$-])\. (?=\d)", "."),
        (r"(?<=\d) %", "%"),
        (r"(?<=[\d%]) ?- ?(?=\$?\d)", "-"),
        (rf"# (?={_ALNUM})", "#"),
        (r"^- (?=[$.]?\d)", "-"),
        (rf'^{_NO_DOUBLE}\d) (?="[^"]*$)', r"\1"),  # 12", but no pair
        # Within a word: t-shirt, n/a, john's, o'clock, rock 'n' roll, a.m., site.com.
        (rf"(?<={_LETTER}) ?([-/]) ?(?={_LETTER})", r"\1"),
        (rf"(?<=\d) ?([-/]) ?(?={_ALNUM})", r"\1"),
        (r"(?<=^[b-hj-z]) ?([-/]) ?(?=\d)", r"\1"),  # b-52, but "a -5 degree day"
        (rf"(?<={_ALNUM}) ' (?=(?:s|t|m|d|ll|re|ve)(?!\w| '))", "'"),
        (r"(?<=\w) ' n ' (?=\w)", " 'n' "),
        (rf"^{_NO_SINGLE}\d) (?='{_NO_SINGLE}$))", r"\1"),
        (rf"^{_NO_SINGLE}(?:{_LETTER}s| n)) ' (?={_LETTER}{_NO_SINGLE}$))", r"\1' "),
        (rf"^{_NO_SINGLE}{_LETTER}) ' (?={_LETTER}{_NO_SINGLE}$))", r"\1'"),
        (rf"\b({_LETTER})\. (?={_LETTER}\.)", r"\1."),
        (rf"(?<=\bwww)\. (?={_ALNUM})|(?<={_ALNUM})\. (?=(?:com|org|net)\b)", "."),
    )
]


def texts_of(tokenizer: Any, ids: Any) -> list[str]:
    """Return the texts of (B, T) token ids, without special tokens.

    Word pieces are joined with blanks: those around ideographs and marks, each a piece
    of its own, hardly anybody has written. They are undone only where the tokenizer
    itself cannot tell the two texts apart: one that keeps blanks has meant them.
    """
    # The library's clean-up joins both sides of every apostrophe, also of a quotation.
    is_cleaned = getattr(tokenizer, "clean_up_tokenization_spaces", False)
    options = {"clean_up_tokenization_spaces": False} if is_cleaned else {}
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True, **options)
    written = {text: _written(tokenizer, text.strip()) for text in set(texts)}
    return [written[text] for text in texts]


def echo_of(tokenizer: Any, text: str, *, split_special_tokens: bool = False) -> str:
    """Return what a model that knows ``text`` would be decoded to.

    Word pieces do not give every text back: ``"Red"`` becomes ``"red"``. A text with an
    unknown token is its own echo, since decoding drops that.

    Args:
        tokenizer: of the model.
        text: as it was written.
        split_special_tokens: whether the model learns a special token in the text as
            text; otherwise as its tokenizer reads it.
    """
    ids = token_ids(tokenizer, text, split_special_tokens=split_special_tokens)
    unknown = getattr(tokenizer, "unk_token_id", None)
    is_known = unknown is None or unknown not in ids
    return texts_of(tokenizer, [ids])[0] if is_known else text


def token_ids(
    tokenizer: Any, text: str, *, split_special_tokens: bool = True
) -> list[int]:
    """Return the ids of a text.

    Split, a ``[SEP]`` is text to word pieces and ends nothing. The library only leaves
    out its own search for such tokens: where ``</s>`` is a piece of the vocabulary, as
    Unigram models have it, it stays that token.
    """
    is_split = split_special_tokens and hasattr(tokenizer, "split_special_tokens")
    options = {"split_special_tokens": True} if is_split else {}
    ids: list[int] = tokenizer(text, **options)["input_ids"]
    return ids


def _written(tokenizer: Any, text: str) -> str:
    if " " not in text:
        return text
    written = text
    for pattern, replacement in _UNDONE:
        written = pattern.sub(replacement, written)
    if written == text:
        return text
    # What was decoded holds no special token: where it looks like one, it is text.
    same = token_ids(tokenizer, written) == token_ids(tokenizer, text)
    return written if same else text
