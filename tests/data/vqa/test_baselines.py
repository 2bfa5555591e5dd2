"""Floors: what an answerer scores that never looks at a picture."""

import json

import pytest

from trainbus_data.rows.reading import read_rows
from trainbus_data.vqa.baselines import answer_floors
from training.errors import DataError


def row(question: str, answer: str, kind: str = "other") -> dict[str, str]:
    return {"question": question, "answer": answer, "kind": kind}


def test_floors_are_shares_in_all_and_by_kind():
    train = [row("a", "x"), row("a", "y"), row("a", "y"), row("b", "x"), row("b", "x")]
    validation = [row("a", "y"), row("b", "x", "k"), row("new", "x"), row("b", "y")]
    floors = answer_floors(train, validation)
    assert floors["most_frequent"] == {"all": 0.5, "k": 1.0, "other": 1 / 3}
    assert floors["question_only"] == {"all": 0.75, "k": 1.0, "other": 2 / 3}


def test_of_equally_frequent_answers_the_first_is_given():
    floors = answer_floors([row("a", "x"), row("a", "y")], [row("a", "x")])
    assert floors["question_only"]["all"] == 1.0


def test_only_rows_with_an_answer_are_judged_and_only_their_kinds_are_told():
    train, bare = [row("a", "x")], {"question": "a"}
    judged = [row("a", "x", "k"), bare, {"question": "a", "answer": "y"}]
    assert answer_floors(train, judged)["question_only"] == {"all": 0.5, "k": 1.0}
    assert answer_floors(train, [bare]) == {}


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="is empty"):
        answer_floors([], [row("a", "x")])


def test_the_floors_of_easy_vqa_are_the_known_ones(shared_folder):
    root = shared_folder / "data" / "easy_vqa"
    if not root.is_dir():
        pytest.skip(f"needs {root}")
    train, validation = (
        [each.as_dict() for each in read_rows(root / f"{name}.jsonl")[0]]
        for name in ("train", "val")
    )
    floors = answer_floors(train, validation)
    assert floors["most_frequent"]["all"] == 0.369
    assert floors["question_only"]["all"] == 0.693
    assert round(floors["question_only"]["yes_no"], 3) == 0.847
    assert round(floors["question_only"]["other"], 3) == 0.246
    assert json.dumps(floors)
