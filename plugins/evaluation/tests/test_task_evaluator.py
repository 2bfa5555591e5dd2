"""Options of generation, beside families that follow them and families that do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
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
