"""Floors: what an answerer scores that never looks at a picture."""

import json
from typing import Any

import pytest

from trainbus_data.rows.reading import read_rows
from trainbus_data.vqa.baselines import answer_floors
from trainbus_data.vqa.task import VQA
from training.errors import DataError
from training.recipes.kinds import floor_of

SCORE = VQA().score


def row(question: str, answer: str, kind: str = "other") -> dict[str, str]:
    return {"question": question, "answer": answer, "kind": kind}


def test_floors_are_shares_in_all_and_by_kind():
    train = [row("a", "x"), row("a", "y"), row("a", "y"), row("b", "x"), row("b", "x")]
    validation = [row("a", "y"), row("b", "x", "k"), row("new", "x"), row("b", "y")]
    floors = answer_floors(train, validation, SCORE)
    names = "all", "accuracy/k", "accuracy/other", "exact_match"
    shares = dict(zip(names, (0.5, 1.0, 1 / 3, 0.5), strict=True))
    assert floors["most_frequent"] == shares
    shares = dict(zip(names, (0.75, 1.0, 2 / 3, 0.75), strict=True))
    assert floors["question_only"] == shares


@pytest.mark.parametrize(
    ("guess", "answers", "accuracy"),
    [
        pytest.param("Yes", ["yes."], 1.0, id="normalised"),
        pytest.param("no", ["no"] * 3 + ["yes"] * 7, 0.9, id="several annotators"),
        pytest.param("no", ["yes"], 0.0, id="wrong"),
    ],
)
def test_a_guess_is_scored_as_a_prediction_is(
    guess: str, answers: list[str], accuracy: float
) -> None:
    judged: dict[str, Any] = row("a", answers[-1]) | {"answers": answers}
    floors = VQA("anls").floors([row("a", guess)], [judged])["question_only"]
    assert floors["all"] == floors["accuracy/other"] == pytest.approx(accuracy)
    assert floors["exact_match"] == 0.0
    assert floors["anls"] == VQA("anls").score(guess, judged)["anls"]


def test_kinds_that_metrics_call_alike_have_one_floor():
    judged = [row("a", "x", "Colour"), row("a", "y", "colour "), row("a", "y", "c/d")]
    floors = answer_floors([row("a", "y")], judged, SCORE)["most_frequent"]
    assert floors["accuracy/colour"] == 0.5
    assert floors["accuracy/c_d"] == 1.0


@pytest.mark.parametrize("kind", ["all", "loss", "accuracy", "exact_match", "anls"])
def test_a_kind_of_a_metrics_name_has_a_floor_of_its_own(kind: str) -> None:
    judged = [row("a", "x", kind), row("a", "y", "z"), row("a", "Y.", "z")]
    floors = VQA("anls").floors([row("a", "y")], judged)["most_frequent"]
    assert floor_of("accuracy", floors) == pytest.approx(2 / 3)
    assert floor_of("exact_match", floors) == pytest.approx(1 / 3)
    assert floor_of(f"accuracy/{kind}", floors) == 0.0
    assert floor_of("accuracy/z", floors) == 1.0
    assert floor_of("accuracy/other", floors) is None


def test_of_equally_frequent_answers_the_first_is_given():
    floors = answer_floors([row("a", "x"), row("a", "y")], [row("a", "x")], SCORE)
    assert floors["question_only"]["all"] == 1.0


def test_only_rows_with_an_answer_are_judged_and_only_their_kinds_are_told():
    train, bare = [row("a", "x")], {"question": "a"}
    judged = [row("a", "x", "k"), bare, {"question": "a", "answer": "y"}]
    floors = answer_floors(train, judged, SCORE)["question_only"]
    assert floors == {"all": 0.5, "accuracy/k": 1.0, "exact_match": 0.5}
    assert answer_floors(train, [bare], SCORE) == {}


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="is empty"):
        answer_floors([], [row("a", "x")], SCORE)


def test_the_floors_of_easy_vqa_are_the_known_ones(shared_folder):
    root = shared_folder / "data" / "easy_vqa"
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    train, validation = (
        [each.as_dict() for each in read_rows(root / f"{name}.jsonl")[0]]
        for name in ("train", "val")
    )
    floors = answer_floors(train, validation, SCORE)
    assert floors["most_frequent"]["all"] == 0.369
    assert floors["question_only"]["all"] == 0.693
    assert round(floors["question_only"]["accuracy/yes_no"], 3) == 0.847
    assert round(floors["question_only"]["accuracy/other"], 3) == 0.246
    assert json.dumps(floors)
