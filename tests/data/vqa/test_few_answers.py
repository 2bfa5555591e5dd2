"""Few annotators: too few to score 1 by the official formula, and a single one."""

from typing import Any

import pytest

from trainbus_data.vqa.accuracy import vqa_accuracy
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


@pytest.mark.parametrize(
    ("said", "answer"),
    [("-", "+"), ("<", ">"), ("", "A"), ("", "?"), ("the", "A"), ("5", "-5"),
     ("-5", "5"), ("5%", "-5%"), ("$5", "-$5")],
)  # fmt: skip
def test_what_normalising_would_make_alike_is_no_single_answer(said, answer) -> None:
    assert VQA().score(said, {"answer": answer})["accuracy"] == 0.0
    assert VQA().score(answer, {"answer": answer})["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("said", "answer"),
    [("a", "A"), ("A.", "A"), ("(b)", "B"), ("a cat", "Cat."), ("two", "2"),
     ("- 5", "-5"), ("\u22125", "-5"), ("1,000", "1000"), ("- yes", "yes")],
)  # fmt: skip
def test_a_single_answer_may_be_written_otherwise(said, answer) -> None:
    assert VQA().score(said, {"answer": answer})["accuracy"] == 1.0


def test_the_accuracy_is_that_of_the_text_that_is_submitted() -> None:
    """Whatever a model that knows the answer is decoded to; accents alone excepted."""
    for answer, said in (("Red", "red"), ("b&w", "b & w"), ("t-shirt", "t - shirt")):
        row = {"answer": answer, "echo": said, "answers": [answer] * 4}
        assert VQA().score(said, row) == {"accuracy": 0.0, "exact_match": 1.0}
        row["answers"] = [answer] * 4 + ["no"]
        found = VQA().score(said, row)["accuracy"]
        assert found == vqa_accuracy(said, row["answers"])


def test_a_right_answer_that_scores_0_is_told_of_once(caplog) -> None:
    task = VQA()
    row = {"answer": "Red", "echo": "red"}
    task.score("red", {**row, "answers": ["Red"]})
    task.score("red", {**row, "answers": ["Red", "Red", "Red", "pink"]})
    task.score("blue", {**row, "answers": ["Red"] * 4})
    task.score("red", {"answer": "red", "echo": "red", "answers": ["blue"] * 4})
    assert caplog.messages == []
    for _ in range(2):
        task.score("red", {**row, "answers": ["Red"] * 4})
    (told,) = caplog.messages
    assert "'red' is what the tokenizer makes of the answer 'Red', and scores 0" in told
