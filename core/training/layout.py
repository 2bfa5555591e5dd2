"""The parts of a checkpoint and their types, as docs/checkpoint-format.md has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from training.checkpoint_io import UnreadableError, read_checkpoint

#: Part -> its type; a mapping stands for a part with parts that must be there.
LAYOUT: dict[str, Any] = {
    "settings": dict,
    "progress": {
        "epoch": int,
        "step": int,
        "update": int,
        "batch": int,
        "loss_sum": (int, float),
        "weight_sum": (int, float),
    },
    "model": dict,
    "optimizer": {"state": dict, "param_groups": list},
    "scaler": (dict, type(None)),
    "rng": {"python": list, "torch": Tensor},
    "data": list,
    "history": list,
    "metrics": dict,
    "requests": list,
    "plugins": dict,
}


def read_state(path: str | Path) -> dict[str, Any]:
    """Return the state in ``path``, verified, with every part there and of its type.

    Raises:
        UnreadableError: as ``read_checkpoint``, or names the first part that is missing
            or of another type.
        CheckpointError: of a newer format.
    """
    state = read_checkpoint(path)
    problem = _problem(state, LAYOUT, "")
    if problem is not None:
        raise UnreadableError(
            f"checkpoint {str(path)!r} is not as save_checkpoint writes it: {problem}; "
            "use an earlier one"
        )
    return state


def _problem(
    state: Mapping[str, Any], layout: Mapping[str, Any], at: str
) -> str | None:
    for name, kind in layout.items():
        if name not in state:
            return f"{at}{name} is missing"
        value = state[name]
        inner = kind if isinstance(kind, dict) else None
        if not isinstance(value, dict if inner is not None else kind):
            return f"{at}{name} is {type(value).__name__}"
        found = None if inner is None else _problem(value, inner, f"{at}{name}.")
        if found is not None:
            return found
    return None
