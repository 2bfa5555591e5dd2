"""What a family says of a model is compared as far as both sides tell it."""

from __future__ import annotations

from typing import Any

import pytest

from training.checkpoint.settings import Change, described_otherwise

DROPOUT = Change("model.build.dropout", 0.0, 0.5)
ROWS = Change("dataset", "a", "b")


def told(was: Any, now: Any, *changes: Change) -> list[str]:
    """Return what is said of two descriptions, beside other changes."""
    saved, own = ({"model": {"model": each}} for each in (was, now))
    return [str(change) for change in described_otherwise(saved, own, changes)]


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        pytest.param(
            {"config": {"id2label": {0: "blue", 1: "red"}}},
            {"config": {"id2label": {"0": "black", "1": "blue"}}},
            "was 'blue' (config.id2label.0), is 'black'",
            id="labels in a mapping",
        ),
        pytest.param(
            {"labels": ["blue"]},
            {"labels": ["blue", "red"]},
            "was 1 (items of labels), is 2",
            id="labels in a list",
        ),
        pytest.param(
            {"files": {"t.json": '{"vocab": {"a": 0, "b": 1}}'}},
            {"files": {"t.json": '{"vocab": {"a": 0, "c": 1}}'}},
            "was 'b' (files.t.json.vocab), is 'c'",
            id="a word in the place of another, in a file of JSON",
        ),
        pytest.param(
            {"files": {"vocab.txt": "a\nb\n" * 999}},
            {"files": {"vocab.txt": "a\nb\n" * 998 + "a\nc\n"}},
            "was 'b' (files.vocab.txt[1997]), is 'c'",
            id="a line of a text",
        ),
    ],
)
def test_the_first_difference_is_told_with_its_place(
    was: Any, now: Any, said: str
) -> None:
    assert told(was, was) == []
    assert told(was, now) == [f"model.description {said}"]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, id="a release tells more"),
        pytest.param({"a": None}, {"a": 2}, id="one side does not know"),
        pytest.param({"_name_or_path": "x"}, {"_name_or_path": "y"}, id="where it was"),
        pytest.param(
            '{"a": 1}', '{ "a": 1, "is_local": true }', id="written otherwise"
        ),
        pytest.param(None, {"a": 2}, id="an earlier release described nothing"),
    ],
)
def test_what_only_one_side_tells_is_no_difference(was: Any, now: Any) -> None:
    assert told(was, now) == told(now, was) == []


def test_another_option_explains_the_description_only_of_the_same_rows() -> None:
    assert told([1], [2], DROPOUT) == []
    assert len(told([1], [2], DROPOUT, ROWS)) == 1
