"""What the settings in a checkpoint must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from training.part_checks import (
    COUNT,
    MOST,
    has_names,
    is_count,
    is_json,
    is_name,
    require,
)

#: Settings that are whole numbers, or None.
COUNTED: Collection[str] = {
    *("gradient_accumulation_steps", "dataset_length", "batch_size", "num_epochs"),
    *("batches_per_epoch", "world_size", "max_steps"),
}


def check_settings(settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Settings are JSON values; the numbers among them are numbers."""
    require(has_names(settings), "settings", settings, "a mapping of names")
    for name, value in settings.items():
        require(is_json(value), f"settings.{name}", value, "a plain value")
    seed = settings.get("seed")
    is_seed = type(seed) is int and -MOST <= seed < 2 * MOST
    require(is_seed, "settings.seed", seed, "a seed")
    groups = settings.get("optimizer.groups", [])
    is_right = isinstance(groups, list) and all(
        is_count(each) or (isinstance(each, list) and all(map(is_name, each)))
        for each in groups
    )
    require(is_right, "settings.optimizer.groups", groups, "a list of groups")
    for name, value in settings.items():
        if name.startswith("optimizer.") and value is not None:
            is_right = isinstance(value, list) and len(value) == len(groups)
            wanted = f"a value for each of {len(groups)} groups"
            require(is_right, f"settings.{name}", value, wanted)
    for name in COUNTED & settings.keys():
        value = settings[name]
        require(value is None or is_count(value), f"settings.{name}", value, COUNT)
