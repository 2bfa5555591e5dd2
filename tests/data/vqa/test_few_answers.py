"""Too few annotators to score 1 by the official formula."""

from typing import Any

import pytest

from trainbus_data.vqa.task import VQA


def rows(*counts: int) -> list[dict[str, Any]]:
    return [
        {"question": "q", "answer": "car", "answers": ["a car", "car", "the car"][:n]}
        for n in counts
    ]


@pytest.mark.parametrize(("counts", "most"), [((2, 2), "0.33"), ((3, 2), "0.50")])
def test_what_few_answers_score_at_most_is_told_once(counts, most, caplog) -> None:
    judged = rows(*counts)
    VQA().floors(judged, judged)
    (told,) = caplog.messages
    assert f"is at most {most}: it is the mean" in told
    scores = [VQA().score("car", row)["accuracy"] for row in judged]
    assert f"{sum(scores) / len(scores):.2f}" == most


@pytest.mark.parametrize("counts", [(1, 1), (1, 3)])
def test_rows_that_may_score_1_are_not_told(counts, caplog) -> None:
    VQA().floors(rows(*counts), rows(*counts))
    four = {"question": "q", "answer": "car", "answers": ["car"] * 4}
    VQA().floors(rows(2), [four, *rows(2)])
    assert caplog.messages == []
