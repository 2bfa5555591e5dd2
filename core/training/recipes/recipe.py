"""Task, family and processor of a run, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.errors import PluginError

if TYPE_CHECKING:
    from torch import nn

    from training.recipes.family import ModelFamily
    from training.recipes.task import Task

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What plugins may ask of how a run was put together.

    Attributes:
        task: scores predictions.
        family: makes them.
        processor: of the model, as the family takes it.
    """

    task: Task
    family: ModelFamily
    processor: Any

    def predict(
        self, model: nn.Module, batch: Any, number: int, **options: Any
    ) -> list[Any]:
        """Return what the family predicts for a batch of that many rows, in order.

        Raises:
            PluginError: it does not answer for each.
        """
        said = list(self.family.predict(model, self.processor, batch, **options))
        if len(said) != number:
            raise PluginError(
                f"{type(self.family).__name__}.predict returned {len(said)} values for "
                f"a batch of {number} rows; return one for each, in order"
            )
        return said
