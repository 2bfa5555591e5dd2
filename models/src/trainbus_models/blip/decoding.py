"""From token ids to text, as a person would write it."""

from __future__ import annotations

import re
from typing import Any

#: What word pieces hold one by one, as BERT's own tokenizer has it: ideographs.
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
#: What is written against them without a blank: kana, digits, wide punctuation.
_BESIDE = "0-9\u3000-\u30ff\uff00-\uffef"
_BLANK = re.compile(
    f"(?<=[{_IDEOGRAPH}]) (?=[{_IDEOGRAPH}{_BESIDE}])"
    f"|(?<=[{_BESIDE}]) (?=[{_IDEOGRAPH}])"
)


def texts_of(processor: Any, ids: Any) -> list[str]:
    """Return the texts of (B, T) token ids, without special tokens.

    Word pieces are joined with blanks: those between ideographs, each a piece of its
    own, nobody has written.
    """
    texts = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [_BLANK.sub("", text.strip()) for text in texts]
