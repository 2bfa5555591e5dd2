"""What a predicted label scores."""

import os
import random
import subprocess
import sys

import pytest
from sklearn.metrics import f1_score

from trainbus_data.image_classification.task import ImageClassification

TASK = ImageClassification()


@pytest.mark.parametrize(
    ("said", "score"),
    [("red", 1.0), ("Red", 0.0), ("blue", 0.0), ("", 0.0), (None, 0.0)],
)
def test_a_label_is_right_to_the_letter(said, score):
    assert TASK.score(said, {"label": "red"}) == {"accuracy": score}


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_that_of_the_field(seed):
    draws = random.Random(seed)
    labels = [draws.choice("aaab") for _ in range(30)]
    said = [draws.choice("abc") for _ in range(30)]
    pairs = zip(labels, said, strict=True)
    records = [{"label": label, "prediction": guess} for label, guess in pairs]
    expected = f1_score(labels, said, average="macro", zero_division=0)
    assert TASK.summarise(records) == {"macro_f1": pytest.approx(expected)}


def test_what_is_not_predicted_is_a_miss_and_no_label_of_its_own():
    rows = [{"label": each, "prediction": each} for each in ("a", "a", "None", "None")]
    rows[0]["prediction"] = rows[2]["prediction"] = None
    assert TASK.score(None, rows[2]) == {"accuracy": 0.0}
    assert TASK.summarise(rows) == {"macro_f1": pytest.approx(2 / 3)}


SCORES = """
import random
from trainbus_data.image_classification.task import ImageClassification

draws = random.Random(0)
pairs = [(draws.choice("abcdefghijk"), draws.choice("abcdefghijk")) for _ in range(97)]
records = [{"label": label, "prediction": guess} for label, guess in pairs]
print(ImageClassification().summarise(records))
"""


def test_macro_f1_is_the_same_to_the_bit_in_each_process():
    told = set()
    for seed in range(1, 5):  # of the order in which a set of texts is read
        env = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", SCORES]
        told.add(subprocess.check_output(command, env=env, text=True))
    assert len(told) == 1, told


def test_the_floor_is_the_most_frequent_label():
    train = [{"label": text} for text in ("a", "b", "b")]
    judged = [{"label": text} for text in ("b", "a", "c", "b")]
    assert TASK.floors(train, judged) == {"most_frequent": {"all": 0.5}}
