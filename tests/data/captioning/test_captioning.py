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


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        pytest.param("एक काल", "एक कील", 0.0, 0.5, id="Hindi: another vowel sign"),
        pytest.param("एक काल।", "एक काल", 1.0, 1.0, id="Hindi: a full stop"),
        pytest.param("มี", "มา", 0.0, 0.0, id="Thai: another vowel sign"),
        pytest.param("一只红猫", "一只黑猫", 0.0, 0.75, id="Chinese"),
        pytest.param("一只 红猫。", "一只红猫", 1.0, 1.0, id="Chinese: a blank"),
        pytest.param("赤い車", "青い車", 0.0, 2 / 3, id="Japanese"),
        pytest.param("3只dogs", "3只cats", 0.0, 2 / 3, id="with a word"),
        pytest.param("caf\u00e9", "cafe\u0301", 1.0, 1.0, id="the same letter twice"),
        pytest.param("café", "cafe", 0.0, 0.0, id="another letter"),
        pytest.param("😀", "🐶", 0.0, 0.0, id="symbols alone"),
        pytest.param(" 🐶", "🐶", 1.0, 1.0, id="the same symbol"),
        pytest.param("", "👍👍", 0.0, 0.0, id="nothing for symbols"),
        pytest.param("a 🐶", "a 😀", 0.0, 0.5, id="a symbol among words"),
        pytest.param("?!", "...", 0.0, 0.0, id="punctuation alone"),
        pytest.param("...", "...", 1.0, 1.0, id="the same punctuation"),
        pytest.param("!", "a", 0.0, 0.0, id="punctuation for a word"),
        pytest.param("", "!", 0.0, 0.0, id="nothing for punctuation"),
        pytest.param("a t-shirt, red", "A t shirt (red)", 1.0, 1.0, id="a hyphen"),
        pytest.param("it's 1,5", "it s 1.5", 1.0, 1.0, id="marks within"),
    ],
)
def test_words_are_told_apart_in_any_script(said, right, exact, f1):
    scores = Captioning().score(said, {"caption": right})
    assert scores == {"exact_match": exact, "f1": f1}


def test_without_further_captions_the_one_that_is_learnt_counts():
    row = {"caption": "a red circle"}
    assert Captioning().score("a red circle", row)["exact_match"] == 1.0


def test_the_floor_is_the_most_frequent_caption():
    train = [{"caption": text} for text in ("a", "b", "b")]
    judged = [{"caption": text} for text in ("b", "a", "c", "b")]
    floors = Captioning().floors(train, judged)
    assert floors == {"most_frequent": {"all": 0.5}}
