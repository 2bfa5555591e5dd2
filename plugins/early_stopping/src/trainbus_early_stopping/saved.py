"""What the state of early stopping in a checkpoint must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from trainbus_early_stopping.progress import Progress
from training.plugin import count, has_names, is_count, is_finite, require_state

COUNT = "a whole number of at least 0"
NUMBER = "a finite number"
#: Field of the progress -> what it is when it is not None, and that in words.
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "reference": (is_finite, NUMBER),
    "best_seen": (is_finite, NUMBER),
    "best_step": (is_count, COUNT),
    "best_epoch": (is_count, COUNT),
    "wait": (is_count, COUNT),
    "checks": (is_count, COUNT),
    "nonfinite_checks": (is_count, COUNT),
    "stopped_by": (lambda value: value in ("patience", "nonfinite"), "a rule"),
    "reason": (lambda value: isinstance(value, str), "text"),
}
#: Fields that are there together, or none of them.
TOGETHER = (
    ("reference", "best_seen", "best_step", "best_epoch"),
    ("stopped_by", "reason"),
)


def progress_in(state: Mapping[str, Any], owner: str) -> Progress:
    """Return the progress in a state, which is of the version that is read here.

    Args:
        state: what ``state_dict`` returned.
        owner: name of the plugin, for messages.
    Raises:
        CheckpointError: no run can have saved it; says what of it.
    """
    require = partial(require_state, owner)
    monitor, mode = state.get("monitor"), state.get("mode")
    require(isinstance(monitor, str), "monitor", monitor, "the name of a metric")
    require(mode in ("min", "max"), "mode", mode, "'min' or 'max'")
    weights = state.get("weights")
    is_right = weights is None or has_names(weights)
    require(is_right, "weights", weights, "a mapping of names")
    saved: Any = state.get("progress")
    known = [field.name for field in fields(Progress)]
    is_right = has_names(saved) and saved.keys() <= set(known)
    require(is_right, "progress", saved, f"a mapping of {', '.join(known)}")
    for name, value in saved.items():
        is_kind, wanted = KINDS[name]
        may_lack = getattr(Progress, name) is None and value is None
        require(may_lack or is_kind(value), f"progress.{name}", value, wanted)
    for names in TOGETHER:
        there = [name for name in names if saved.get(name) is not None]
        is_right = len(there) in (0, len(names))
        require(is_right, "progress", there, f"all of {', '.join(names)}")
    progress = Progress(**saved)
    for name in ("wait", "nonfinite_checks"):
        value, most = getattr(progress, name), progress.checks
        wanted = f"within the {count(most, 'check')} it is a part of"
        require(value <= most, f"progress.{name}", value, wanted)
    return progress
