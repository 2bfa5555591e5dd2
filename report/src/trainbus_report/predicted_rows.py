"""Rows with predictions: what is taken for what, and where it is sure and wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.app.records.run_folder import is_number
from training.errors import DataError
from training.files.named_paths import open_file
from training.recipes.family import CONFIDENCES
from training.recipes.task import Task

__all__ = ["Confusion", "PredictedRows", "read_predictions"]

#: Scores of a row of which 1 is all that can be had; another may be an error.
BEST_AT_1 = ("accuracy", "exact_match", "anls", "f1")
#: Classes that a table of confusions has; with more, there is a list of them.
MOST_CLASSES = 20
#: Confusions in the list, and rows that are shown.
MOST_MISTAKES, MOST_ROWS = 15, 12
#: Letters of a value that are shown.
MOST_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each class was taken for each.

    Attributes:
        classes: the heads of rows and columns; ``None`` stands for all others.
        counts: true class by predicted class.
    """

    classes: list[str | None]
    counts: list[list[int]]

    def share(self, row: int, column: int) -> float:
        """Return which share of the true class was taken for that one."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


class PredictedRows:
    """The rows of a file of predictions, as their task sees them.

    Args:
        path: the file.
        rows: its rows.
        task: of the run.
    """

    def __init__(self, path: Path, rows: list[dict[str, Any]], task: Task) -> None:
        self.path, self.rows = path, rows
        self._task = task
        self.score_name = next((m for m in task.metrics if _has(rows, m)), "")
        self.sureness = next((name for name in CONFIDENCES if _has(rows, name)), "")

    @property
    def missing_target(self) -> str:
        """The field that the task predicts, where no row has it; else ``""``."""
        target = self._task.target
        return "" if not self.rows or _has(self.rows, target) else target

    @property
    def mean(self) -> float | None:
        """The mean score."""
        scores = [each for row in self.rows if (each := self.score(row)) is not None]
        return sum(scores) / len(scores) if scores else None

    def score(self, row: Mapping[str, Any]) -> float | None:
        """Return the task's score of a row; None where nothing was labelled."""
        value = row.get(self.score_name) if self._task.target in row else None
        return float(value) if is_number(value) or type(value) is bool else None

    def true(self, row: Mapping[str, Any]) -> str:
        """Return what would have been right."""
        return _short(row.get(self._task.target))

    def said(self, row: Mapping[str, Any]) -> str:
        """Return what was predicted."""
        return _short(row.get("prediction"))

    def asked(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return (field, value) of what a person sees of a row beside pictures."""
        return [
            (name, _short(row[name]))
            for name, kind in self._task.fields.items()
            if kind.startswith("text") and not kind.endswith("?")
            if name in row and name != self._task.target
        ]

    def pictures(self, row: Mapping[str, Any]) -> list[str]:
        """Return the names of a row's pictures."""
        kinds = self._task.fields.items()
        names = [name for name, kind in kinds if kind.rstrip("?") == "picture"]
        return [str(row[name]) for name in names if row.get(name) is not None]

    def is_right(self, row: Mapping[str, Any]) -> bool | None:
        """Whether a row is right; None where nothing says so.

        A share says it. Where the score is another, a text is compared with its target;
        a number, whose target is a text, may be near it.
        """
        if self._task.target not in row:
            return None
        if (share := self._share(row)) is not None:
            return share == 1
        said, true = row["prediction"], row[self._task.target]
        return said == true if type(said) is type(true) else None

    @property
    def is_share(self) -> bool:
        """Whether a score of 1 is known to mean that a row is right."""
        return self.score_name in BEST_AT_1

    @property
    def are_judged(self) -> bool:
        """Whether of any row it is known that it is right or wrong."""
        return any(self.is_right(row) is not None for row in self.rows)

    def _share(self, row: Mapping[str, Any]) -> float | None:
        """Return the score of a row where 1 means that it is right."""
        return self.score(row) if self.is_share else None

    @property
    def surest_mistakes(self) -> list[dict[str, Any]]:
        """The wrong rows of the least share, of these those that it is surest of."""
        wrong = [row for row in self.rows if self.is_right(row) is False]

        def rank(row: Mapping[str, Any]) -> tuple[float, float]:
            return self._share(row) or 0.0, -self.sure(row)

        return sorted(wrong, key=rank)[:MOST_ROWS]

    def sure(self, row: Mapping[str, Any]) -> float:
        """Return how sure it is; less than anything where that is not known."""
        value = row.get(self.sureness)
        return float(value) if is_number(value) else -math.inf

    @property
    def confusion(self) -> Confusion | None:
        """What was taken for what; None where there are too many classes, or none."""
        pairs = self._pairs()
        true = Counter(pair[0] for pair in pairs)
        if not 1 < len(true) <= MOST_CLASSES:
            return None
        classes = sorted(true)
        counts = Counter(pairs)
        others = [said for _, said in pairs if said not in true]
        columns: list[str | None] = [*classes, *([None] if others else [])]
        table = [[counts[row, column] for column in classes] for row in classes]
        if others:
            for row, line in zip(classes, table, strict=True):
                line.append(true[row] - sum(line))
        return Confusion(columns, table)

    @property
    def mistakes(self) -> list[tuple[str, str, int]]:
        """The most frequent confusions: true, predicted, how often."""
        wrong = Counter(pair for pair in self._pairs() if pair[0] != pair[1])
        return [(*pair, number) for pair, number in wrong.most_common(MOST_MISTAKES)]

    def _pairs(self) -> list[tuple[str, str]]:
        """Return what is true and what was said of a row; the same where it is right.

        How an answer is written is the task's to forgive, as ``2`` for ``two``.
        """
        judged = ((row, self.is_right(row)) for row in self.rows)
        return [
            (self.true(row), self.true(row) if is_right else self.said(row))
            for row, is_right in judged
            if is_right is not None
        ]


def read_predictions(path: Path, task: Task) -> PredictedRows:
    """Return the rows of a file that ``evaluate --predictions`` wrote.

    Raises:
        DataError: it is no such file; says which line.
    """
    rows = []
    try:
        with open_file(path) as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or "prediction" not in row:
                    raise DataError(
                        f"{str(path)!r}:{number} is no row with a prediction"
                    )
                rows.append(row)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{str(path)!r} cannot be read as rows with predictions ({error}); name a "
            "file that `trainbus evaluate --predictions FILE.jsonl` wrote"
        ) from error
    return PredictedRows(path, rows, task)


def _has(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(name in row for row in rows)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
