"""What a caption scores."""

import pytest

from trainbus_data.captioning.task import Captioning

ROW = {"caption": "A small red circle.", "captions": ["a red circle", "one red disc"]}


@pytest.mark.parametrize(
    ("said", "exact", "f1"),
    [
        pytest.param("a red circle", 1.0, 1.0, id="one of the captions"),
        pytest.param("One red, disc!", 1.0, 1.0, id="case and punctuation"),
        pytest.param("red circle", 0.0, 0.8, id="a word is missing"),
        pytest.param("a a red circle", 0.0, 6 / 7, id="a word too many"),
        pytest.param("circle red a", 0.0, 1.0, id="another order"),
        pytest.param("blue", 0.0, 0.0, id="nothing in common"),
        pytest.param("", 0.0, 0.0, id="nothing"),
    ],
)
def test_a_caption_is_measured_against_the_nearest(said, exact, f1):
    assert Captioning().score(said, ROW) == {
        "exact_match": exact,
        "f1": pytest.approx(f1),
    }


def test_without_further_captions_the_one_that_is_learnt_counts():
    row = {"caption": "a red circle"}
    assert Captioning().score("a red circle", row)["exact_match"] == 1.0


def test_the_floor_is_the_most_frequent_caption():
    train = [{"caption": text} for text in ("a", "b", "b")]
    judged = [{"caption": text} for text in ("b", "a", "c", "b")]
    floors = Captioning().floors(train, judged)
    assert floors == {"most_frequent": {"all": 0.5}}
