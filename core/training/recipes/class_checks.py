"""Whether a class is what its entry-point group says, seen without an instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.recipes.family import CONFIDENCES, ModelFamily
from training.recipes.task import Task

__all__ = ["class_mistakes", "confidence_mistake", "metrics_mistake"]

#: Kind -> attributes that its classes have, themselves or from a base below the two.
NEEDED = {
    "task": ("fields", "target", "score"),
    "model": ("tasks", "collate", "predict"),
    "reader": ("__len__", "__getitem__", "place"),
}


def class_mistakes(kind: str, cls: type[Any]) -> list[str]:
    """Return what a class of that kind lacks, one phrase each."""
    inherited = (Task, ModelFamily, object)
    lacking = [
        name
        for name in NEEDED.get(kind, ())
        if all(name not in vars(c) for c in cls.__mro__ if c not in inherited)
    ]
    if lacking:
        return [f"it lacks {', '.join(lacking)}"]
    return _task_mistakes(cls) if kind == "task" else _family_mistakes(kind, cls)


def _task_mistakes(cls: type[Any]) -> list[str]:
    fields, target = cls.fields, cls.target
    if not isinstance(fields, Mapping) or not fields:
        return [f"its fields are {fields!r}; write a mapping of names to kinds"]
    if target not in fields:
        return [f"its target {target!r} is none of its fields: {', '.join(fields)}"]
    return [mistake] if (mistake := metrics_mistake(cls)) else []


def metrics_mistake(task: Any) -> str:
    """Return what a task, or its class, says wrongly of its metrics, else ""."""
    metrics = task.metrics
    if isinstance(metrics, property):  # of a class: each task has its own
        return ""
    if not isinstance(metrics, (tuple, list)) or not all(
        isinstance(name, str) for name in metrics
    ):
        return f"its metrics are {metrics!r}; write names in a tuple"
    if own := {"loss", "val_loss"}.intersection(metrics):
        return f"its metrics have {min(own)!r}, which is measured anyway; leave it out"
    return ""


def _family_mistakes(kind: str, cls: type[Any]) -> list[str]:
    if kind != "model":
        return []
    if isinstance(cls.tasks, str) or not cls.tasks:
        return [f"its tasks are {cls.tasks!r}; write names in a tuple"]
    if not hasattr(cls, "load") and not hasattr(cls, "build"):
        return ["it has neither load nor build"]
    return [mistake] if (mistake := confidence_mistake(cls)) else []


def confidence_mistake(family: Any) -> str:
    """Return what a family, or its class, says wrongly of its confidence, else ""."""
    if not hasattr(family, "predict_with_confidence"):
        return ""
    said = getattr(family, "confidence", "")
    if said in CONFIDENCES:
        return ""
    return (
        f"its predict_with_confidence returns what its confidence calls {said!r}; "
        f"call it {' or '.join(map(repr, CONFIDENCES))}"
    )
