"""What answers score that never look at a picture: the floors under an accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainbus_data.commonest import commonest
from training.errors import DataError
from training.recipes.kinds import slug

__all__ = ["answer_floors"]

#: Answer, row -> its scores by metric; ``accuracy`` is among them.
Score = Callable[[str, Mapping[str, Any]], Mapping[str, float]]


def answer_floors(
    train_rows: Sequence[Mapping[str, Any]],
    validation_rows: Sequence[Mapping[str, Any]],
    score: Score,
) -> dict[str, dict[str, float]]:
    """Return what two answerers score that see no picture.

    ``most_frequent`` always gives the training rows' most frequent answer;
    ``question_only`` gives the most frequent answer of that very question, and the
    former's where training has no such question. Of equally frequent
    answers the one that training has first is given.

    Args:
        train_rows: dicts with ``question`` and ``answer``.
        validation_rows: the same; those without an answer are not judged, and those
            without ``kind`` count in ``all`` only.
        score: answer, row -> its scores by metric, such as a task's method.
    Returns:
        For each of the two a dict of means: the ``accuracy`` of ``all``, then of each
        kind as ``accuracy/<kind>``, as metrics write it, then what else ``score``
        measures, by its name; ``{}`` if no row can be judged.
    Raises:
        DataError: one of the two is empty.
    """
    if not train_rows or not validation_rows:
        raise DataError("floors need training rows and validation rows; one is empty")
    judged = [row for row in validation_rows if "answer" in row]
    if not judged:
        return {}
    most_frequent = commonest(row["answer"] for row in train_rows)
    answers: dict[str, list[str]] = defaultdict(list)
    for row in train_rows:
        answers[row["question"]].append(row["answer"])
    by_question = {text: commonest(given) for text, given in answers.items()}
    guesses = [by_question.get(row["question"], most_frequent) for row in judged]
    return {
        "most_frequent": _means(judged, [most_frequent] * len(judged), score),
        "question_only": _means(judged, guesses, score),
    }


def _means(
    rows: Sequence[Mapping[str, Any]], guesses: Sequence[str], score: Score
) -> dict[str, float]:
    overall: list[float] = []
    kinds: dict[str, list[float]] = defaultdict(list)
    others: dict[str, list[float]] = defaultdict(list)
    for row, guess in zip(rows, guesses, strict=True):
        scores = dict(score(guess, row))
        accuracy = scores.pop("accuracy")
        overall.append(accuracy)
        if kind := row.get("kind"):
            kinds[f"accuracy/{slug(kind)}"].append(accuracy)
        for metric, value in scores.items():
            others[metric].append(value)
    groups = {"all": overall, **dict(sorted(kinds.items())), **others}
    return {name: sum(each) / len(each) for name, each in groups.items()}
