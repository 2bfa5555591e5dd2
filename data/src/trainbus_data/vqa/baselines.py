"""What answers score that never look at a picture: the floors under an accuracy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.errors import DataError

__all__ = ["answer_floors"]


def answer_floors(
    train_rows: Sequence[Mapping[str, Any]],
    validation_rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
    """Return the exact-match share of two answerers that see no picture.

    ``most_frequent`` always gives the training rows' most frequent answer;
    ``question_only`` gives the most frequent answer of that very question, and the
    former's where training has no such question. Of equally frequent
    answers the one that training has first is given.

    Args:
        train_rows: dicts with ``question`` and ``answer``.
        validation_rows: the same; those without an answer are not judged, and those
            without ``kind`` count in ``all`` only.
    Returns:
        For each of the two a dict of shares in [0, 1]: ``all``, then each kind; ``{}``
        if no row can be judged.
    Raises:
        DataError: one of the two is empty.
    """
    if not train_rows or not validation_rows:
        raise DataError("floors need training rows and validation rows; one is empty")
    judged = [row for row in validation_rows if "answer" in row]
    if not judged:
        return {}
    most_frequent = _commonest(row["answer"] for row in train_rows)
    answers: dict[str, list[str]] = defaultdict(list)
    for row in train_rows:
        answers[row["question"]].append(row["answer"])
    by_question = {text: _commonest(given) for text, given in answers.items()}
    return {
        "most_frequent": _score(judged, {}, most_frequent),
        "question_only": _score(judged, by_question, most_frequent),
    }


def _commonest(answers: Iterable[str]) -> str:
    counts = Counter(answers)
    return counts.most_common(1)[0][0]  # of equals the first that was counted


def _score(
    rows: Sequence[Mapping[str, Any]], guesses: Mapping[str, str], otherwise: str
) -> dict[str, float]:
    hits: dict[str, list[bool]] = {"all": []}
    for row in rows:
        hit = guesses.get(row["question"], otherwise) == row["answer"]
        hits["all"].append(hit)
        if kind := row.get("kind"):
            hits.setdefault(kind, []).append(hit)
    first = {"all": hits.pop("all")}
    return {
        kind: sum(given) / len(given)
        for kind, given in (first | dict(sorted(hits.items()))).items()
    }
