"""Answers whose accents a tokenizer strips."""

import pytest

from trainbus_data.vqa.accuracy import vqa_accuracy
from trainbus_data.vqa.task import VQA


def score(said: str, answer: str, echo: str, answers: list[str]) -> float:
    row = {"answer": answer, "echo": echo, "answers": answers}
    return VQA().score(said, row)["accuracy"]


@pytest.mark.parametrize(
    ("answers", "accuracy"),
    [
        pytest.param(["grün"] * 4, 1.0, id="all agree"),
        pytest.param(["grün"] * 3, 2 / 3, id="three"),
        pytest.param(["grün", "grün", "rot"], 4 / 9, id="two of three"),
        pytest.param(["grün"] + ["rot"] * 9, 0.3, id="one of ten"),
    ],
)
def test_an_answer_without_its_accents_scores_as_the_answer(answers, accuracy) -> None:
    assert score("grun", "grün", "grun", answers) == pytest.approx(accuracy)
    assert score("grün", "grün", "grun", answers) == pytest.approx(accuracy)
    assert score("gran", "grün", "grun", answers) == 0.0


def test_an_ascii_answer_scores_as_officially() -> None:
    answers = ["t-shirt"] * 3
    for said in ("t-shirt", "t - shirt"):
        found = score(said, "t-shirt", "t - shirt", answers)
        assert found == vqa_accuracy(said, answers)
