"""Describing a picture in words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from trainbus_data.commonest import commonest_floor
from training.recipes.task import Task

__all__ = ["Captioning", "words_of"]

#: Kana and ideographs.
_ALONE = re.compile(
    "[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Captioning(Task):
    """A picture and a caption; there may be several that are right.

    ``exact_match``: the prediction has the words of one of the captions, in their
    order. ``f1``: the harmonic mean of the share of its words that the caption has and
    the share of the caption's that it has, of the caption where that is greatest. Case
    and punctuation do not count. Both are in [0, 1].
    """

    fields: ClassVar[Mapping[str, str]] = {
        "image": "picture",
        "caption": "text",
        "captions": "texts?",
        "kind": "text?",
    }
    target: ClassVar[str] = "caption"
    metrics = ("exact_match", "f1")
    default_family: ClassVar[str] = "chat"

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return exact match and F1 of one caption."""
        said = words_of(prediction)
        right = [words_of(text) for text in row.get("captions") or [row["caption"]]]
        return {
            "exact_match": float(said in right),
            "f1": max(_overlap(said, words) for words in right),
        }

    def floors(
        self, train: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """Return what the training rows' most frequent caption scores."""
        return commonest_floor(self, train, judged)


def words_of(text: Any) -> list[str]:
    """Return the words of a text, lower-cased, in the Unicode form NFC.

    Blanks and punctuation part them; vowel signs, which Unicode counts as marks, and
    symbols do not. Each ideograph and each kana is a word, since nothing parts those of
    Chinese and Japanese. A text without words is one itself, as it is written.
    """
    text = unicodedata.normalize("NFC", str(text).lower()).strip()
    letters = (" " if unicodedata.category(c)[0] == "P" else c for c in text)
    return _ALONE.sub(r" \g<0> ", "".join(letters)).split() or [text]


def _overlap(said: Sequence[str], right: Sequence[str]) -> float:
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))
