"""The rules of the official VQA accuracy, one claim a case."""

import pytest

from trainbus_evaluation import normalise, vqa_accuracy


def people(*counts):
    """Return ``counts`` as annotators' answers: ``("yes", 3)`` is three of them."""
    return [answer for answer, count in counts for _ in range(count)]


@pytest.mark.parametrize(
    ("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)]
)
def test_ten_annotators_give_these_scores(matches, score):
    answers = people(("cat", matches), ("dog", 10 - matches))
    assert vqa_accuracy("cat", answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        pytest.param("yes", people(("yes", 10)), 1.0, id="unanimous and equal"),
        pytest.param("Yes", people(("yes", 10)), 0.0, id="unanimous: case counts"),
        pytest.param("yes.", people(("yes", 10)), 0.0, id="unanimous: so do periods"),
        pytest.param("2", people(("two", 10)), 0.0, id="unanimous: and number words"),
        pytest.param(
            "Yes.", people(("yes", 9), ("no", 1)), 1.0, id="disagreement normalises"
        ),
        pytest.param("2", people(("two", 5), ("a pair", 5)), 1.0, id="then two is 2"),
        pytest.param("cat", ["cat"] * 3, 2 / 3, id="three of three are two others"),
        pytest.param("cat", ["cat"], 0.0, id="one annotator has no others"),
        pytest.param(" yes\n", people(("yes", 10)), 1.0, id="blanks at the ends go"),
        pytest.param(
            "cat",
            [{"answer": "cat", "answer_id": i} for i in range(10)],
            1.0,
            id="entries with an answer_id are different people",
        ),
        pytest.param(
            "cat", [{"answer": "cat"}] * 10, 0.0, id="equal entries are one person"
        ),
    ],
)
def test_a_prediction_scores(prediction, answers, score):
    assert vqa_accuracy(prediction, answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        pytest.param("t-shirt", "t shirt", id="a mark inside becomes a blank"),
        pytest.param("t - shirt", "t shirt", id="a mark at a blank goes"),
        pytest.param("yes - t-shirt", "yes tshirt", id="then it goes everywhere"),
        pytest.param("1,5 and a-b", "15 and ab", id="digit comma digit drops them all"),
        pytest.param("3.5 m.", "3.5 m", id="a period before a digit stays"),
        pytest.param("10:30", "10:30", id="a colon stays"),
        pytest.param("a cat on the mat", "cat on mat", id="articles go"),
        pytest.param("a", "", id="also when nothing is left"),
        pytest.param("No one", "no 1", id="number words, wherever"),
        pytest.param("dont", "don't", id="an apostrophe is put back"),
        pytest.param("couldnt've", "couldn't've", id="one of two"),
        pytest.param("Im", "im", id="but not where the table has a capital"),
        pytest.param("somebody'd", "somebodyd", id="the official table's oddity"),
        pytest.param("a\tb", "b", id="a tab is a blank"),
        pytest.param("x." * 40, "x" * 32 + "x." * 8, id="at most 32 periods go"),
    ],
)
def test_a_text_is_normalised_to(text, result):
    assert normalise(text) == result


def test_no_annotator_is_an_error():
    with pytest.raises(ValueError, match="answers is empty"):
        vqa_accuracy("yes", [])
