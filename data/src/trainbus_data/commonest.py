"""The most frequent target: what it is, and what it scores as the only prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.recipes.task import Task

__all__ = ["commonest", "commonest_floor"]


def commonest(texts: Iterable[str]) -> str:
    """Return the most frequent text; of equals the first that was counted."""
    return Counter(texts).most_common(1)[0][0]


def commonest_floor(
    task: Task, train: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return what the training rows' most frequent target scores in the first metric.

    ``{}`` where no row can be judged.
    """
    guess = commonest(str(row[task.target]) for row in train)
    known = [row for row in judged if task.target in row]
    scores = [task.score(guess, row)[task.metrics[0]] for row in known]
    return {"most_frequent": {"all": sum(scores) / len(scores)}} if scores else {}
