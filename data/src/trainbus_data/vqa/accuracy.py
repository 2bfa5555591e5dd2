"""The VQA accuracy of the official evaluation, rule by rule.

A "VQA accuracy" means little without its revision: an older one in wide use normalises
at other times and differs by several points. This one follows ``VQA_EVAL_REVISION``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

#: The revision of the official evaluation whose results these are.
VQA_EVAL_REVISION = "GT-Vision-Lab/VQA a013f00 (2021-03-11)"

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_MINUS = re.compile(r"^[-\u2212]\s*(?=[$.]*\d)")  # a hyphen, or the sign itself
_MAX_PERIODS = 32  # the official code passes a flag of that value as the count
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())}
_NUMBERS["none"] = "0"
# Words that are completed when one of their apostrophes is missing.
_APOSTROPHE_WORDS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
    hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've
    it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
    oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd
    they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll
    you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    places = [index for index, letter in enumerate(word) if letter == "'"]
    return [word[:index] + word[index + 1 :] for index in places]


_CONTRACTIONS = {
    incomplete: word
    for word in _APOSTROPHE_WORDS.split()
    for incomplete in _without_one_apostrophe(word)
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the official table has it this way round


def vqa_accuracy(prediction: str, answers: Sequence[str | Mapping[str, Any]]) -> float:
    """Return the official accuracy of one prediction, in [0, 1].

    For each annotator: the number of other annotators that gave the prediction, divided
    by 3, at most 1; then the mean over annotators. Texts are normalised only if the
    annotators disagree. With ten annotators 0, 1, 2, 3, 4 matches give 0, 0.3, 0.6,
    0.9, 1; with one annotator it is always 0.

    Args:
        prediction: the model's answer.
        answers: the annotators' answers; a mapping has its text under ``"answer"``,
            and equal mappings count as one annotator, as officially.
    Raises:
        ValueError: ``answers`` is empty.
    """
    if not answers:
        raise ValueError("answers is empty; pass what the annotators answered")
    prediction = _flat(prediction)
    texts = [_flat(a if isinstance(a, str) else str(a["answer"])) for a in answers]
    if len(set(texts)) > 1:
        prediction = normalise(prediction)
        texts = [normalise(text) for text in texts]
    # Plain strings are told apart by position, as official entries are by answer_id.
    people = [
        index if isinstance(answer, str) else {**answer, "answer": text}
        for index, (answer, text) in enumerate(zip(answers, texts, strict=True))
    ]
    scores = []
    for person in people:
        matches = sum(
            text == prediction and other != person
            for text, other in zip(texts, people, strict=True)
        )
        scores.append(min(1.0, matches / 3))
    return sum(scores) / len(scores)


def answer_scores(
    prediction: str,
    answer: str,
    echo: str,
    answers: Sequence[str | Mapping[str, Any]] = (),
) -> dict[str, float]:
    """Return the ``accuracy`` and the ``exact_match`` of one answer, in [0, 1].

    Args:
        prediction: the model's answer.
        answer: the one that is learnt.
        echo: what a model that knows ``answer`` is decoded to.
        answers: those of annotators: of several the official accuracy counts, of one
            or none whether the prediction is ``answer`` or ``echo``, normalised, but
            -5 not as 5, nor as nothing what has marks or an article alone.
    """
    if len(answers) > 1:
        accuracy = vqa_accuracy(prediction, answers)
        if not answer.isascii() and normalise(prediction) == normalise(echo):
            # Who cannot say the answer's accents is right without them.
            accuracy = max(accuracy, vqa_accuracy(answer, answers))
    else:
        accuracy = float(_meant(prediction) in {_meant(answer), _meant(echo)})
    return {"accuracy": accuracy, "exact_match": float(prediction == echo)}


@lru_cache(maxsize=4096)  # of 20 us; few answers are most of a set's
def normalise(text: str) -> str:
    """Return ``text`` without punctuation and articles, numbers as digits."""
    words = [word for word in _words(text) if word not in _ARTICLES]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words)


def _meant(text: str) -> str:
    """Return ``text`` normalised, but for what would make it another answer.

    Officially answers that agree, as a single one does, are not normalised at all; this
    forgives how a text is written, but no other sign of a number and no other mark.
    """
    flat = _flat(text).lower()
    number = _MINUS.sub("", flat)
    sign = "-" if number != flat else ""
    return sign + (normalise(number) or " ".join(_words(number)) or number)


def _words(text: str) -> list[str]:
    words = _without_punctuation(_flat(text)).lower().split()
    return [_NUMBERS.get(word, word) for word in words]


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """Drop each mark that touches a blank somewhere, else put a blank in its place."""
    drops_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        touches_blank = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if drops_all or touches_blank else " ")
    return _PERIOD_BEFORE_NO_DIGIT.sub("", result, count=_MAX_PERIODS)
