"""What the state of checkpointing in a checkpoint must be, and what it tells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainbus_checkpointing.folder import is_bare_name
from trainbus_checkpointing.retention import Entry
from training.plugin import (
    MetricValue,
    has_names,
    is_count,
    is_finite,
    require_state,
)

#: As many as the system follows: what has more of them was not loaded.
MOST_LINKS = 40


@dataclass(frozen=True)
class Resumed:
    """What tells which run goes on.

    Attributes:
        paths: of the checkpoint that was loaded, as it was named, and each that this
            leads to as a link, the file itself last. None in a fresh run.
        position: (epoch, step) of its state.
        known: (file, step) pairs that this plugin had listed, and
        metrics: the latest that the run had measured, both to know it by.
    """

    paths: tuple[Path, ...]
    position: tuple[int, int]
    known: tuple[tuple[str, int], ...]
    metrics: Mapping[str, MetricValue]


def resumed_by(
    state: Mapping[str, Any],
    source: Path | None,
    position: tuple[int, int],
    metrics: Mapping[str, MetricValue],
) -> Resumed:
    """Return what tells the run of a checked state; ``{}`` in a fresh run."""
    named = filter(None, (state.get("best"), state.get("last")))
    known = tuple((each["file"], each["step"]) for each in named)
    paths = tuple(_links_from(source)) if source else ()
    return Resumed(paths, position, known, metrics)


def _links_from(path: Path) -> Iterator[Path]:
    """Yield a path, and each that it leads to as a link."""
    yield path
    for _ in range(MOST_LINKS):
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)
        yield path


def pointer(entry: Entry) -> dict[str, Any]:
    """Return what a state says of a file."""
    return {"file": entry.file, "step": entry.step}


def check_state(owner: str, state: Mapping[str, Any]) -> None:
    """Look at a state, which is of the version that is read here.

    Args:
        owner: name of the plugin, for messages.
        state: what ``state_dict`` returned.
    Raises:
        CheckpointError: no run can have saved it; says what of it.
    """
    require = partial(require_state, owner)
    monitor, mode = state.get("monitor"), state.get("mode")
    is_right = monitor is None or isinstance(monitor, str)
    require(is_right, "monitor", monitor, "the name of a metric, or None")
    require(mode in ("min", "max"), "mode", mode, "'min' or 'max'")
    for which, names in (
        ("best", ["file", "step", "value"]),
        ("last", ["file", "step"]),
    ):
        kept = state.get(which)
        if kept is None:
            continue
        is_right = has_names(kept) and kept.keys() >= set(names)
        require(is_right, which, kept, f"a mapping of {', '.join(names)}")
        file, step, value = kept["file"], kept["step"], kept.get("value")
        is_right = isinstance(file, str) and is_bare_name(file)
        require(is_right, f"{which}.file", file, "the name of a checkpoint")
        wanted = "a whole number of at least 0"
        require(is_count(step), f"{which}.step", step, wanted)
        is_right = value is None or is_finite(value)
        require(is_right, f"{which}.value", value, "a finite number, or None")
