"""Task, family and processor of a run, together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
