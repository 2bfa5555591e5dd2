"""Options of generation, beside families that follow them and families that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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


class Echoes(Classifies):
    def echo(self, processor: Any, value: str) -> str:
        return value


class Rows(dict[str, Any]):
    """A batch that weighs nothing."""

    loss_weight = 0

    def __init__(self, kinds: list[str]) -> None:
        self.rows = [{"answer": "yes", "kind": kind} for kind in kinds]
        super().__init__(x=torch.zeros(len(kinds)))


def judged(*kinds: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is told of evaluations of rows of these kinds."""
    task = SimpleNamespace(
        metrics=("accuracy",),
        target="answer",
        score=lambda said, row: {"accuracy": float(said == row["answer"])},
        summarise=lambda records: {},
    )
    recipe = SimpleNamespace(
        task=task,
        family=Echoes(),
        processor=None,
        predict=lambda model, batch, number: ["yes"] * number,
    )
    measure = TaskEvaluator(nn.Linear(1, 1), recipe)
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
