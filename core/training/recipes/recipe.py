"""Task, family and processor of a run, together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError, PluginError
from training.messages.tables import count
from training.recipes.class_checks import confidence_mistake, metrics_mistake
from training.recipes.family import CONFIDENCES

if TYPE_CHECKING:
    from torch import nn

    from training.recipes.family import ModelFamily
    from training.recipes.task import Task

__all__ = ["Recipe"]

#: What a sum of shares may be off by.
ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Recipe:
    """What plugins may ask of how a run was put together.

    Attributes:
        task: scores predictions.
        family: makes them.
        processor: of the model, as the family takes it.
        settings: by dotted name, what decides the function that the model computes; a
            resume compares them.
    Raises:
        ConfigError: the task's metrics are no tuple of names.
    """

    task: Task
    family: ModelFamily
    processor: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the metrics here, which a task may choose when it is made."""
        if mistake := metrics_mistake(self.task):
            raise ConfigError(f"{type(self.task).__name__}: {mistake}")

    @property
    def confidence(self) -> str:
        """What the number beside a prediction is; ``""`` where there is none.

        None is beside those of a family without ``predict_with_confidence``, and of a
        task that has a field or a metric of that name.
        """
        if not hasattr(self.family, "predict_with_confidence"):
            return ""
        name = self.family.confidence
        return "" if name in {*self.task.fields, *self.task.metrics} else name

    def predict(
        self, model: nn.Module, batch: Any, number: int, **options: Any
    ) -> list[Any]:
        """Return what the family predicts for a batch of that many rows, in order.

        Raises:
            PluginError: it does not answer for each.
        """
        said = list(self.family.predict(model, self.processor, batch, **options))
        return self._for_each(said, "predict", number)

    def answer(
        self, model: nn.Module, batch: Any, number: int, **options: Any
    ) -> list[dict[str, Any]]:
        """Return a mapping for each of that many rows, in order.

        It has the ``prediction``, and the family's ``confidence`` by its name, where
        there is one: a number that may be NaN where the model's are.

        Raises:
            PluginError: the family does not answer for each, or its confidence is none.
        """
        name = self.confidence
        if not name:
            said = self.predict(model, batch, number, **options)
            return [{"prediction": value} for value in said]
        if mistake := confidence_mistake(self.family):
            raise PluginError(f"{type(self.family).__name__}: {mistake}")
        answer = self.family.predict_with_confidence  # type: ignore[attr-defined]
        said = list(answer(model, self.processor, batch, **options))
        return [
            self._with_confidence(name, each)
            for each in self._for_each(said, "predict_with_confidence", number)
        ]

    def _for_each(self, said: list[Any], method: str, number: int) -> list[Any]:
        if len(said) != number:
            raise PluginError(
                f"{type(self.family).__name__}.{method} returned "
                f"{count(len(said), 'value')} for a batch of {count(number, 'row')}; "
                "return one for each, in order"
            )
        return said

    def _with_confidence(self, name: str, said: Any) -> dict[str, Any]:
        least, most = CONFIDENCES[name]
        try:
            prediction, number = said
            number = float(number)
        except (TypeError, ValueError):
            number = math.inf
        if number < least - ROUNDING or number > most + ROUNDING:
            raise PluginError(
                f"{type(self.family).__name__}.predict_with_confidence returned "
                f"{said!r} for a row; return the prediction and a {name}, which is a "
                f"number from {least:g} to {most:g}"
            )
        return {"prediction": prediction, name: number}
