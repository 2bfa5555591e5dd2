"""What a task's class declares is looked at before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from training import Task
from training.recipes.class_checks import class_mistakes


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        pytest.param("accuracy", "its metrics are 'accuracy'; write names", id="text"),
        pytest.param(("loss", "f1"), "have 'loss', which is measured", id="loss"),
        pytest.param(("val_loss",), "have 'val_loss', which is", id="val_loss"),
    ],
)
def test_metrics_that_could_not_be_measured_are_refused(
    metrics: Any, told: str
) -> None:
    (found,) = class_mistakes("task", task_with(metrics))
    assert told in found


def test_a_tuple_of_names_is_taken() -> None:
    assert class_mistakes("task", task_with(("accuracy", "f1"))) == []


def task_with(metrics: Any) -> type[Task]:
    said = {"fields": {"a": "text"}, "target": "a", "score": lambda *given: {}}
    return type("Own", (Task,), {**said, "metrics": metrics})
