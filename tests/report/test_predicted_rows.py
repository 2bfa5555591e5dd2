"""Which predicted rows are right, and which wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainbus_data.vqa.task import VQA
from trainbus_report.predicted_rows import PredictedRows
from training.recipes.task import Task


def test_a_row_that_scores_1_is_no_mistake_however_it_is_written() -> None:
    rows = [
        {"answer": answer, "prediction": said, "accuracy": score}
        for answer, said, score in (
            ("two", "2", 1.0),
            ("a cat", "cat", 1.0),
            ("two", "cat", 0.0),
            ("two", "2!", 0.9),
        )
    ]
    predicted = PredictedRows(Path("said.jsonl"), rows, VQA())
    assert predicted.mistakes == [("two", "cat", 1), ("two", "2!", 1)]
    confusion = predicted.confusion
    assert confusion is not None
    assert confusion.classes == ["a cat", "two", None]
    assert confusion.counts == [[1, 0, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    ("said", "known"),
    [([4, 2, 3], [None] * 3), (["2", "1", "3"], [False, False, True])],
    ids=["a number is neither", "a text is compared with its target"],
)
def test_a_score_that_may_be_an_error_calls_no_row_right_or_wrong(
    said: list[Any], known: list[bool | None]
) -> None:
    class Price(Task):
        fields: ClassVar = {"price": "text"}
        target = "price"
        metrics = ("abs_error",)

    rows = [
        {"price": price, "prediction": each, "abs_error": abs(float(each) - int(price))}
        for price, each in zip("123", said, strict=True)
    ]
    predicted = PredictedRows(Path("said.jsonl"), rows, Price())
    assert [predicted.is_right(row) for row in rows] == known
    assert predicted.surest_mistakes == [
        row for row, is_right in zip(rows, known, strict=True) if is_right is False
    ]
    assert (predicted.confusion is None) == (not predicted.are_judged)


def test_rows_that_score_in_part_are_wrong_the_least_first_then_the_surest() -> None:
    rows = [
        {"answer": "two", "prediction": said, "accuracy": score, "probability": sure}
        for said, score, sure in (
            ("three", 0.6, 0.9),
            ("two", 1.0, 0.9),
            ("four", 0.3, 0.2),
            ("five", 0.3, 0.4),
            ("six", 0.0, 0.1),
        )
    ]
    predicted = PredictedRows(Path("said.jsonl"), rows, VQA())
    said = [row["prediction"] for row in predicted.surest_mistakes]
    assert said == ["six", "five", "four", "three"]
