"""Where two nested values differ: tensors by bits, NaN equal to NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["difference", "run_difference"]


def difference(one: Any, two: Any, path: str = "") -> str:
    """Return where ``one`` and ``two`` differ first, ``""`` if nowhere."""
    here = path or "value"
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        is_same = one.dtype == two.dtype and torch.equal(
            one.nan_to_num(), two.nan_to_num()
        )
        return "" if is_same else f"{here} differs"
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        if list(map(str, one)) != list(map(str, two)):
            return f"{here} has keys {list(one)} against {list(two)}"
        pairs = ((one[key], two[key], f"{path}[{key!r}]") for key in one)
        return next((d for d in (difference(*pair) for pair in pairs) if d), "")
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        if len(one) != len(two):
            return f"{here} has {len(one)} items against {len(two)}"
        pairs = (
            (a, b, f"{path}[{i}]")
            for i, (a, b) in enumerate(zip(one, two, strict=True))
        )
        return next((d for d in (difference(*pair) for pair in pairs) if d), "")
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return "" if math.isnan(two) else f"{here} is nan against {two}"
    return "" if one == two else f"{here} is {one!r} against {two!r}"


def run_difference(one: Any, two: Any, name: str) -> str:
    """Return where two finished runs differ, be it in who stopped them.

    Args:
        one: a trainer.
        two: another one, on the same toy data.
        name: the plugin whose state is compared.
    """
    for what, values in (
        ("weights", [t.model.state_dict() for t in (one, two)]),
        ("optimizer", [t.optimizer.state_dict() for t in (one, two)]),
        ("history", [[_timeless(row) for row in t.history] for t in (one, two)]),
        ("stop_owner", [t.stop_owner for t in (one, two)]),
        ("state", [_state(t, name) for t in (one, two)]),
    ):
        if found := difference(*values):
            return f"{what}: {found}"
    return ""


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


def _state(trainer: Any, name: str) -> Any:
    plugin = trainer.plugins.get(name)
    return dict(plugin.state_dict()) if hasattr(plugin, "state_dict") else {}
