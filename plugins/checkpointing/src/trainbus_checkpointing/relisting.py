"""List a resumed run's files anew when their list is missing or was damaged.

Only files that are known to be of that run: the one it goes on from, and those that the
plugin's state in it names. All others stay as they are, and are never deleted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from trainbus_checkpointing import folder as files
from trainbus_checkpointing.filename import is_name_of_last
from trainbus_checkpointing.retention import Entry
from training import CheckpointError
from training.plugin import read_checkpoint

log = logging.getLogger(__name__)


def relisted(folder: Path, known: Iterable[tuple[str, int]]) -> list[Entry]:
    """Return entries of the files that are there and hold what is known, oldest first.

    Args:
        folder: where they lie.
        known: (file, step) pairs.
    """
    entries = {}
    for name, step in known:
        if files.is_bare_name(name) and (folder / name).exists():
            try:
                entry = _entry(folder / name)
            except (
                CheckpointError,
                OSError,
                LookupError,
                TypeError,
                ValueError,
            ) as why:
                log.warning("checkpointing: %s is not listed: %s", folder / name, why)
                continue
            if entry.step == step:
                entries[name] = entry
                log.warning("checkpointing: %s is listed again", folder / name)
    return sorted(entries.values(), key=lambda entry: (entry.epoch, entry.step))


def _entry(path: Path) -> Entry:
    state = read_checkpoint(path)
    progress = state["progress"]
    measured = {
        name: value
        for name, (value, step, *_) in state["metrics"].items()
        if step == progress["step"]
    }
    return Entry(
        file=path.name,
        step=progress["step"],
        epoch=progress["epoch"],
        update=progress["update"],
        is_ranked=not is_name_of_last(path.name),
        reason="listed again",
        num_bytes=files.size_of(path),
        digest=files.digest_of(path),
        metrics={k: v if math.isfinite(v) else None for k, v in measured.items()},
    )
