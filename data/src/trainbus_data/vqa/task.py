"""Questions about pictures, answered in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from trainbus_data.commonest import commonest
from trainbus_data.vqa.accuracy import answer_scores
from trainbus_data.vqa.baselines import answer_floors
from training.recipes.task import Task

__all__ = ["VQA", "kind_of"]

logger = logging.getLogger(__name__)

#: Annotators that must agree for an accuracy of 1.
NUM_FOR_ALL = 4


class VQA(Task):
    """A question about a picture, and its answer.

    ``accuracy`` of a row with several annotators' ``answers`` is the official VQA
    accuracy (revision ``VQA_EVAL_REVISION``), of the answer where that has accents and
    the prediction is what it is decoded to; otherwise prediction and answer must be
    equal after the official normalisation. ``exact_match``: the prediction is what a
    model that knows the answer would be decoded to. All are in [0, 1].

    Args:
        metric: ``anls`` measures that, too: 1 - the normalised edit distance to the
            nearest answer, 0 below 0.5, for texts read from documents.
    """

    fields: ClassVar = {
        "image": "picture",
        "question": "text",
        "answer": "text",
        "question_id": "id",
        "answers": "texts?",
        "kind": "text?",
    }
    target = "answer"
    instead: ClassVar = {"answer": "answers"}
    metrics: tuple[str, ...] = ("accuracy", "exact_match")
    default_family = "blip"

    def __init__(self, metric: Literal["accuracy", "anls"] = "accuracy") -> None:
        self.metric, self._has_told = metric, False
        if metric == "anls":
            self.metrics = ("anls", *self.metrics)

    def complete(self, row: dict[str, Any]) -> None:
        """Give a row the answer, the list of answers and the kind that it lacks."""
        if "answers" in row and "answer" not in row:
            row["answer"] = commonest(row["answers"])
        if "answer" in row:
            row.setdefault("answers", [row["answer"]])
            row.setdefault("kind", kind_of(row["answer"]))

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return accuracy and exact match of one answer, and ANLS where asked for."""
        answer = str(row["answer"])
        echo = str(row.get("echo", answer))
        answers = row.get("answers") or ()
        scores = answer_scores(prediction, answer, echo, answers)
        is_lost = scores["exact_match"] and not scores["accuracy"] and echo != answer
        if is_lost and not self._has_told:
            self._has_told = True
            logger.warning(
                "%r is what the tokenizer makes of the answer %r, and scores 0 beside "
                "those of several annotators, which the official accuracy takes as "
                "they are written; write answers as the tokenizer does",
                *(prediction, answer),
            )
        if self.metric == "anls":
            scores["anls"] = max(_likeness(prediction, a) for a in answers or [answer])
        return scores

    def submission(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the servers that score VQA take of one record."""
        return {"question_id": record["question_id"], "answer": record["prediction"]}

    def floors(
        self, train: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """Return what the most frequent answers score, of all and of each question."""
        counts = [len(row.get("answers") or ()) for row in judged]
        if counts and min(counts) > 1 and max(counts) < NUM_FOR_ALL:
            logger.warning(
                "every judged row has %d to %d answers, with which the official VQA "
                "accuracy is at most %.2f: it is the mean over annotators of min(1, "
                "others who agree / 3); give rows one answer, or four and more",
                min(counts),
                max(counts),
                sum(min(1, (number - 1) / 3) for number in counts) / len(counts),
            )
        return answer_floors(train, judged, self.score)


def kind_of(answer: str) -> str:
    """Return ``yes_no``, ``number`` or ``other``, as VQA v2 groups its answers."""
    word = answer.strip().lower()
    if word in {"yes", "no"}:
        return "yes_no"
    digits = word.replace(",", "").replace(".", "", 1)
    return "number" if digits.isascii() and digits.isdigit() else "other"


@lru_cache(maxsize=4096)  # a guess is compared with the same answers again and again
def _likeness(prediction: str, answer: str) -> float:
    """Return 1 - edit distance / longer length, lower-cased; 0 below 0.5."""
    one, other = prediction.strip().lower(), answer.strip().lower()
    if not one and not other:
        return 1.0
    if 2 * min(len(one), len(other)) < max(len(one), len(other)):
        return 0.0  # the distance is at least the difference of lengths
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, opposite in enumerate(other, start=1):
            changed = before + (letter != opposite)
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, changed)
    likeness = 1 - row[-1] / max(len(one), len(other))
    return likeness if likeness >= 0.5 else 0.0
