"""The settings of a run, as TensorBoard takes them: flat, and as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training import Trainer

Value = str | bool | int | float
#: Settings of a configuration that decide nothing about what is learnt.
HOUSEKEEPING = re.compile(
    r"data\.(?!batch_size$)|training\.(save_dir|device)$|requires$"
)


def main_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the settings of a run that a reader of its curves asks for."""
    groups = trainer.optimizer.param_groups
    return {
        "model": type(trainer.model).__name__,
        "optimizer": type(trainer.optimizer).__name__,
        "lr": [float(group.get("initial_lr", group["lr"])) for group in groups],
        "weight_decay": [group.get("weight_decay") for group in groups],
        "num_epochs": trainer.num_epochs,
        "max_steps": trainer.max_steps,
        "steps_per_epoch": trainer.steps_per_epoch,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "max_grad_norm": trainer.max_grad_norm,
        "precision": trainer.precision,
        "device": str(trainer.device),
        "seed": trainer.seed,
    }


def hyperparameters(trainer: Trainer) -> dict[str, Value]:
    """Return what runs are compared by, as in ``training.optimizer.lr``.

    That is the configuration, where there is one, but for where things lie and how rows
    are read; else what ``main_settings`` returns. What is not set is left out.
    """
    found = trainer.metadata.get("config")
    settings = _flat(found if isinstance(found, Mapping) else main_settings(trainer))
    return {key: value for key, value in settings if not HOUSEKEEPING.match(key)}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Value]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif key == "plugins" and isinstance(value, list):
        # Some by name, some over their options.
        for item in value:
            yield from _flat(item if isinstance(item, Mapping) else {item: True}, key)
    elif isinstance(value, (str, bool, int, float)):
        yield key, value
    elif value is not None:
        yield key, json.dumps(value, default=str, ensure_ascii=False)
