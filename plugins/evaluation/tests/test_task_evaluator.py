"""Options of generation, beside families that follow them and families that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainbus_evaluation import TaskEvaluator
from training import ConfigError


class Classifies:
    def predict(self, model: Any, processor: Any, batch: Any) -> list[str]:
        return []


class Generates:
    def predict(
        self, model: Any, processor: Any, batch: Any, *, num_beams: int = 1
    ) -> list[str]:
        return []


def evaluator(family: Any, **options: Any) -> TaskEvaluator:
    task = SimpleNamespace(metrics=("accuracy",), target="answer")
    recipe = SimpleNamespace(task=task, family=family, processor=None)
    return TaskEvaluator(nn.Linear(1, 1), recipe, **options)


@pytest.mark.parametrize(
    ("family", "options", "told"),
    [
        pytest.param(Classifies(), {"num_beams": 3}, "num_beams is 3", id="beams"),
        pytest.param(
            Generates(), {"max_new_tokens": 3}, "max_new_tokens is 3", id="length"
        ),
        pytest.param(
            Classifies(),
            {"num_beams": 3, "max_new_tokens": 3},
            "max_new_tokens is 3",
            id="of both the first, in each process",
        ),
    ],
)
def test_an_option_that_predictions_do_not_follow_is_refused(
    family: Any, options: dict[str, int], told: str
) -> None:
    with pytest.raises(ConfigError, match=f"{told}, but predictions of the family"):
        evaluator(family, **options)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        pytest.param(Classifies(), {}, id="none"),
        pytest.param(Classifies(), {"num_beams": 1}, id="the usual value"),
        pytest.param(Generates(), {"num_beams": 3}, id="one that it takes"),
    ],
)
def test_others_are_taken(family: Any, options: dict[str, int]) -> None:
    assert evaluator(family, **options).metrics


class IsCut(Classifies):
    def predict(
        self, model: Any, batch: Any, number: int, *, max_new_tokens: int = 2
    ) -> list[str]:
        return [" ".join(["a"] * max_new_tokens)] * number

    def echo(self, processor: Any, value: str) -> str:
        return value


@pytest.mark.parametrize(
    ("options", "said", "told"),
    [
        pytest.param({}, "a a", 0, id="none"),
        pytest.param({"max_new_tokens": None}, "a a", 0, id="none, said so"),
        pytest.param({"max_new_tokens": 3}, "a a a", 0, id="as long as it takes"),
        pytest.param({"max_new_tokens": 1}, "a", 1, id="too short"),
    ],
)
def test_a_length_left_out_is_the_familys_and_one_that_cuts_answers_is_told_once(
    options: dict[str, Any], said: str, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    family = IsCut()
    recipe = SimpleNamespace(
        task=Scored(), family=family, processor=None, predict=family.predict
    )
    measure = TaskEvaluator(nn.Linear(1, 1), recipe, metrics=["accuracy"], **options)
    batch = Rows(["a"])
    batch["labels"] = torch.tensor([[0, 1, 2, 3, -100]])
    measure.evaluate([batch])
    assert not caplog.text  # the labels may be those of the question, too
    batch["decoder_input_ids"] = batch["labels"]
    for _ in range(2):
        measure.evaluate([batch])
        assert [row["prediction"] for row in measure.records] == [said]
    assert caplog.text.count("but a right answer takes 3") == told


class Echoes(Classifies):
    def echo(self, processor: Any, value: str) -> str:
        return value


class Rows(dict[str, Any]):
    """A batch that weighs nothing."""

    loss_weight = 0

    def __init__(self, kinds: list[str]) -> None:
        self.rows = [{"answer": "yes", "kind": kind} for kind in kinds]
        super().__init__(x=torch.zeros(len(kinds)))


class Scored:
    """A task that scores as it is told to."""

    metrics: Any = ("accuracy",)
    target = "answer"

    def __init__(self, given: Any = None, summary: Any = None) -> None:
        self.given = given or (
            lambda said, row: {"accuracy": float(said == row["answer"])}
        )
        self.summary = {} if summary is None else summary

    def score(self, said: str, row: dict[str, Any]) -> Any:
        return self.given(said, row)

    def summarise(self, records: list[dict[str, Any]]) -> Any:
        return self.summary


def measuring(task: Scored, **options: Any) -> TaskEvaluator:
    recipe = SimpleNamespace(
        task=task,
        family=Echoes(),
        processor=None,
        predict=lambda model, batch, number: ["yes"] * number,
    )
    return TaskEvaluator(nn.Linear(1, 1), recipe, **options)


def judged(*kinds: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is told of evaluations of rows of these kinds."""
    measure = measuring(Scored())
    for each in kinds:
        measure.evaluate([Rows(each)])
    return caplog.messages


def test_kinds_that_share_a_metric_are_told_once(caplog) -> None:
    told = judged(["🐶", "😀", "a b", "a/b", "c"], ["🐶", "😀"], caplog=caplog)
    assert told == [
        "kinds of rows are measured together where they differ in case and in what is "
        "no letter or digit only: '🐶', '😀' as accuracy/_; 'a b', 'a/b' as "
        "accuracy/a_b; call them otherwise to tell them apart"
    ]


def test_kinds_of_their_own_metric_are_not_told(caplog) -> None:
    assert judged(["yes", "no", "yes"], caplog=caplog) == []


@pytest.mark.parametrize("scores", [{"accuracy": None}, {"accuracy": "1"}, None, 1.0])
def test_scores_that_are_no_numbers_name_the_task(scores: Any) -> None:
    measure = measuring(Scored(lambda said, row: scores))
    with pytest.raises(ConfigError, match=r"^score of the task Scored returned "):
        measure.evaluate([Rows(["a"])])


def test_a_summary_that_is_no_number_names_the_task() -> None:
    with pytest.raises(ConfigError, match=r"^summarise of the task Scored returned "):
        measuring(Scored(summary={"f1": "high"})).evaluate([Rows(["a"])])


@pytest.mark.parametrize("value", [1, True, np.float32(1.0), np.True_, torch.ones(())])
def test_numbers_of_any_library_are_scores(value: Any) -> None:
    measure = measuring(Scored(lambda said, row: {"accuracy": value}))
    assert float(measure.evaluate([Rows(["a"])])["accuracy"]) == 1.0


def test_a_declared_metric_that_no_row_has_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be one of a few rows, which another evaluation has."""
    measure = measuring(Scored(lambda said, row: {"acuracy": 1.0}))
    for _ in range(2):
        measure.evaluate([Rows(["a"])])
    assert caplog.text.count("Scored declares the metric 'accuracy', but") == 1


def test_a_metric_may_be_of_all_rows_together() -> None:
    measure = measuring(Scored(lambda said, row: {}, summary={"accuracy": 0.5}))
    assert measure.evaluate([Rows(["a"])])["accuracy"] == 0.5


def test_rows_without_a_label_need_no_score() -> None:
    batch = Rows(["a"])
    del batch.rows[0]["answer"]
    assert "accuracy" not in measuring(Scored()).evaluate([batch])


class Seen:
    """Notes what it is given, and in how many goes."""

    def reset(self) -> None:
        self.given: list[Any] = []

    def update(self, predictions: list[str], targets: list[str]) -> None:
        self.given.append((predictions, targets))

    def compute(self) -> int:
        return len(self.given)


def test_metrics_of_ones_own_are_given_all_rows_that_say_what_is_right() -> None:
    seen, all_given = Seen(), []

    def number(predictions: list[str], targets: list[str]) -> int:
        all_given.append((predictions, list(targets)))
        return len(targets.pop() * 2)  # of its own list

    measure = measuring(Scored(), metrics=["loss", number, seen, "accuracy"])
    first, second = Rows(["a", "b"]), Rows(["a"])
    del first.rows[1]["answer"]
    second.rows[0]["answer"] = "no"
    for _ in range(2):
        found = measure.evaluate([first, second])
        assert (found["number"], found["Seen"], found["accuracy"]) == (4, 1, 0.5)
        assert seen.given == [(["yes", "yes"], ["yes", "no"])]
    assert all_given == [*seen.given] * 2
    assert measure.metric_names([]) is None  # kinds of rows are not known


def test_one_that_goes_by_the_name_of_the_tasks_is_in_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def accuracy(predictions: list[str], targets: list[str]) -> float:
        return 0.25

    found = measuring(Scored(), metrics=[accuracy]).evaluate([Rows(["a"])])
    assert found["accuracy"] == 0.25
    assert "accuracy/a" not in found
    (told,) = caplog.messages
    assert "'accuracy', which is measured in place of that of the run; name it" in told


def test_where_no_row_says_what_is_right_none_of_them_is_measured() -> None:
    batch = Rows(["a"])
    del batch.rows[0]["answer"]
    found = measuring(Scored(), metrics=["accuracy", Seen()]).evaluate([batch])
    assert found.keys() == {"val_loss"}
