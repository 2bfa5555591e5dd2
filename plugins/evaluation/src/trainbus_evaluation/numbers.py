"""The numbers among what evaluators return, and their names in the run."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any


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
