"""What a task's class declares is looked at before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from training import ConfigError, ModelFamily, Task
from training.recipes.class_checks import class_mistakes
from training.recipes.recipe import Recipe

UNFIT = pytest.mark.parametrize(
    ("metrics", "told"),
    [
        pytest.param("accuracy", "its metrics are 'accuracy'; write names", id="text"),
        pytest.param(None, "its metrics are None; write names", id="none"),
        pytest.param((1,), "its metrics are (1,); write names", id="number"),
        pytest.param(("loss", "f1"), "have 'loss', which is measured", id="loss"),
        pytest.param(("val_loss",), "have 'val_loss', which is", id="val_loss"),
    ],
)


@UNFIT
def test_metrics_that_could_not_be_measured_are_refused(
    metrics: Any, told: str
) -> None:
    (found,) = class_mistakes("task", task_with(metrics))
    assert told in found


@UNFIT
def test_metrics_that_a_task_chooses_when_it_is_made_are_looked_at_too(
    metrics: Any, told: str
) -> None:
    task = task_with(())()
    task.metrics = metrics
    with pytest.raises(ConfigError, match="Own: its metrics ") as caught:
        Recipe(task, ModelFamily(), None)
    assert told in str(caught.value)


def test_a_tuple_of_names_is_taken() -> None:
    assert class_mistakes("task", task_with(("accuracy", "f1"))) == []


def test_metrics_that_are_a_property_are_those_of_each_task() -> None:
    cls = task_with(property(lambda task: ("accuracy",)))
    assert class_mistakes("task", cls) == []
    assert Recipe(cls(), ModelFamily(), None).confidence == ""


def task_with(metrics: Any) -> type[Task]:
    said = {"fields": {"a": "text"}, "target": "a", "score": lambda *given: {}}
    return type("Own", (Task,), {**said, "metrics": metrics})
