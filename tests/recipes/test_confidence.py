"""A recipe shows how sure a family is beside its predictions, if the family tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from completes import ROWS, Completes, Completion, Sure
from torch import nn

from training import PluginError
from training.recipes.class_checks import class_mistakes
from training.recipes.recipe import Recipe


class Says(Sure):
    """Answers with what it was made with."""

    confidence = "probability"

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def predict_with_confidence(
        self, model: Any, processor: Any, batch: Any, **options: Any
    ) -> Any:
        return self.said


class Measures(Completion):
    metrics = ("right", "probability")


class Holds(Completion):
    fields: ClassVar = {**Completion.fields, "probability": "text?"}


def answers(family: Any, number: int = 1, task: Any = None) -> list[dict[str, Any]]:
    recipe = Recipe(task or Completion(), family, None)
    return recipe.answer(nn.Linear(1, 1), None, number)


def test_a_family_without_any_answers_with_predictions_alone() -> None:
    family = Completes()
    family.task = Completion()
    model, alphabet = family.build(ROWS)
    recipe, batch = Recipe(family.task, family, alphabet), family.collate("abc", ROWS)
    with torch.no_grad():
        said = recipe.answer(model, batch, len(ROWS))
    assert [[*each] for each in said] == [["prediction"]] * len(ROWS)
    assert recipe.confidence == ""


def test_the_number_stands_beside_the_prediction_by_its_name() -> None:
    said = answers(Says([("a", 0.25), ["b", 1]]), 2)
    assert said == [
        {"prediction": "a", "probability": 0.25},
        {"prediction": "b", "probability": 1.0},
    ]


def test_what_a_model_that_diverged_says_is_no_mistake_of_the_family() -> None:
    (said,) = answers(Says([("a", math.nan)]))
    assert math.isnan(said["probability"])


@pytest.mark.parametrize("task", [Measures, Holds])
def test_a_tasks_own_field_or_metric_of_that_name_stays(task: Any) -> None:
    class Quiet(Says):
        def predict(self, *given: Any) -> list[str]:
            return ["a"]

    family = Quiet([("a", 0.5)])
    assert answers(family, task=task()) == [{"prediction": "a"}]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param([], "returned 0 values for a batch of 1 row;", id="too few"),
        pytest.param([("a", 98.0)], "a number from 0 to 1", id="percent"),
        pytest.param([("a", -0.5)], "a number from 0 to 1", id="a logarithm"),
        pytest.param([("a", None)], "return the prediction and a prob", id="none"),
        pytest.param([0.5], "return the prediction and a prob", id="a number alone"),
        pytest.param(["ab"], "return the prediction and a prob", id="a text"),
    ],
)
def test_what_is_no_pair_with_such_a_number_is_refused(
    said: Sequence[Any], words: str
) -> None:
    with pytest.raises(PluginError, match=f"Says.predict_with_confid.*{words}"):
        answers(Says(said))


class Misnamed(Says):
    confidence = "certainty"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        pytest.param(Completes, [], id="without"),
        pytest.param(Sure, [], id="with"),
        pytest.param(Misnamed, ["calls 'certainty'; call it 'prob"], id="misnamed"),
    ],
)
def test_the_class_says_what_the_number_is(family: Any, words: list[str]) -> None:
    found = class_mistakes("model", family)
    assert len(found) == len(words)
    assert all(word in mistake for word, mistake in zip(words, found, strict=True))


def test_a_misnamed_number_is_refused_when_it_is_asked_for() -> None:
    with pytest.raises(PluginError, match=r"Misnamed: .*'certainty'; call it"):
        answers(Misnamed([("a", 0.5)]))
