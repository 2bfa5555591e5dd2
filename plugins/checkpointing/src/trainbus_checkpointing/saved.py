"""What the state of checkpointing in a checkpoint must be, and what it tells."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_checkpointing.folder import is_bare_name
from trainbus_checkpointing.retention import Entry
from training.plugin import (
    MetricValue,
    has_names,
    is_count,
    is_finite,
    require_state,
)

if TYPE_CHECKING:
    from trainbus_checkpointing.store import Store
    from training import Trainer

#: As many as the system follows: what has more of them was not loaded.
MOST_LINKS = 40


@dataclass(frozen=True)
class Resumed:
    """What tells which run goes on.

    Attributes:
        paths: of the checkpoint that was loaded, as it was named, and each that this
            leads to as a link, the file itself last. None in a fresh run.
        is_kept: whether one of them lies in the folder of a keeper of the run; else it
            has gone to another folder.
        position: (epoch, step) of its state.
        known: (file, step) pairs that this plugin had listed, and
        metrics: the latest that the run had measured, both to know it by.
    """

    paths: tuple[Path, ...]
    is_kept: bool
    position: tuple[int, int]
    known: tuple[tuple[str, int], ...]
    metrics: Mapping[str, MetricValue]


def resumed_by(
    trainer: Trainer, state: Mapping[str, Any], keepers: Collection[Store]
) -> Resumed:
    """Return what tells the run that ``trainer`` goes on with.

    Args:
        trainer: of the run.
        state: of the plugin, checked; ``{}`` in a fresh run.
        keepers: of all plugins of the run that keep its checkpoints.
    """
    source, folder = trainer.resumed_from, Path(trainer.save_dir).absolute()
    paths = tuple(_links_from(source)) if source else ()
    named = filter(None, (state.get("best"), state.get("last")))
    # Outside of ``save_dir`` are another run's files, of which one number may be the
    # same: they would be taken for its own.
    is_own = state and source and source.absolute().is_relative_to(folder)
    return Resumed(
        paths,
        is_kept=any(each.is_at(path.parent) for each in keepers for path in paths),
        position=(trainer.epoch, trainer.step),
        known=tuple((each["file"], each["step"]) for each in named),
        metrics=trainer.metrics if is_own else {},
    )


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
