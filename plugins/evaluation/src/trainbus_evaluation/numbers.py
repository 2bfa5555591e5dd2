"""The numbers among what evaluators and tasks return, and their names in the run."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from training import ConfigError


def name_in_run(name: str, loader: str) -> str:
    """Return what a metric of one loader is called; ``loader`` is ``""`` alone."""
    called = "val_loss" if name == "loss" else name
    return f"{called}/{loader}" if loader else called


def numbers_of(results: Mapping[str, Any], loader: str) -> dict[str, float]:
    """Return the numbers among ``results`` by the names that they have in the run."""
    numbers = {name: number_of(value) for name, value in results.items()}
    return {
        name_in_run(name, loader): number
        for name, number in numbers.items()
        if number is not None
    }


def number_of(value: Any) -> float | None:
    """Return a number of Python, numpy or a 0-d tensor or array as a float."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_number else None


def checked_scores(task: Any, method: str, found: Any) -> dict[str, Any]:
    """Return what ``score`` or ``summarise`` of a task returned.

    Raises:
        ConfigError: it is no mapping of names to numbers.
    """
    if not isinstance(found, Mapping) or not all(map(_reads_as_number, found.values())):
        raise ConfigError(
            f"{method} of the task {type(task).__name__} returned {found!r}; "
            "return a mapping of metrics to numbers"
        )
    return dict(found)


def _reads_as_number(value: Any) -> bool:
    """Whether it is one, of whatever library; a text that reads as one is none."""
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
