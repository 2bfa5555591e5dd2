"""What the settings in a checkpoint must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from training.checkpoint.checks.parts import (
    COUNT,
    MOST,
    are_names,
    has_names,
    is_count,
    is_finite,
    is_json,
    is_name,
    is_number,
    require,
)
from training.messages.tables import count
from training.weighing.units import is_unit

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
    # The numbers that torch takes: 64 bits, with a sign or without.
    is_seed = type(seed) is int and -MOST <= seed < 2 * MOST
    require(is_seed, "settings.seed", seed, "a seed")
    groups = settings.get("optimizer.groups", [])
    has_sizes = "names" not in state["optimizer"]  # as of an earlier release
    is_right = isinstance(groups, list) and all(
        are_names(each) or (has_sizes and is_count(each)) for each in groups
    )
    require(is_right, "settings.optimizer.groups", groups, "a list of groups")
    for name, value in settings.items():
        if name.startswith("optimizer.") and value is not None:
            is_right = isinstance(value, list) and len(value) == len(groups)
            wanted = f"{count(len(groups), 'value')}, one for each group"
            require(is_right, f"settings.{name}", value, wanted)
    for name in COUNTED & settings.keys():
        value = settings[name]
        require(value is None or is_count(value), f"settings.{name}", value, COUNT)
    if settings.get("loss_per") is not None:
        _check_weighing(settings["loss_per"], "settings.loss_per")


def _check_weighing(kept: Any, at: str) -> None:
    """What a batch counts by, and how far that was measured."""
    names = {"unit", "live", "r", "scale", "cuts", "batches", "is_settled"}
    is_right = has_names(kept) and names <= kept.keys()
    require(is_right, at, kept, "a mapping of what was measured")
    unit, live, rest, scale = (kept[name] for name in ("unit", "live", "r", "scale"))
    require(has_names(live), f"{at}.live", live, "a mapping of units")
    for name, amount in live.items():
        is_right = is_unit(name) and is_finite(amount) and amount >= 0
        require(is_right, f"{at}.live[{name!r}]", amount, "an amount of a unit")
    # One that was said is not among those measured, and a function has its own name.
    is_right = unit is None or (is_name(unit) and (not live or unit in live))
    require(is_right, f"{at}.unit", unit, "one of those measured")
    # What is got by its name is not in files of all earlier releases.
    for name, size in (("r", rest), ("norm", kept.get("norm", 0.0))):
        is_right = is_number(size) and size >= 0
        require(is_right, f"{at}.{name}", size, "a number of at least 0")
    is_right = is_finite(scale) and scale > 0
    require(is_right, f"{at}.scale", scale, "a number above 0")
    for name in ("cuts", "batches"):
        require(is_count(kept[name]), f"{at}.{name}", kept[name], COUNT)
    later, ignoring = kept.get("later"), kept.get("num_ignoring", 0)
    require(later is None or is_count(later), f"{at}.later", later, COUNT)
    require(is_count(ignoring), f"{at}.num_ignoring", ignoring, COUNT)
    for name in ("is_settled", "has_waited"):
        known = kept.get(name, False)
        require(isinstance(known, bool), f"{at}.{name}", known, "a bool")
    undecided, aside = kept.get("undecided", []), kept.get("aside")
    is_right = are_names(undecided) and all(is_unit(name) for name in undecided)
    require(is_right, f"{at}.undecided", undecided, "a list of units")
    if aside is not None:
        _check_weighing(aside, f"{at}.aside")
