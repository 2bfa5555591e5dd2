"""List a resumed run's files anew that no list names.

Only files that are known to be of that run: where the list is missing or was damaged,
the one it goes on from and those that the plugin's state in it names; and what it wrote
at that very boundary and died before it could list. They are ranked. As it is no list
that tells whose they are, and each may be a copy that somebody laid there, they are as
little deleted as all others, which stay as they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainbus_checkpointing import folder as files
from trainbus_checkpointing.filename import FilenameTemplate, is_name_of_last
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.retention import Entry
from training import CheckpointError
from training.plugin import peek_state, read_checkpoint

log = logging.getLogger(__name__)

#: What a file may raise that is no checkpoint of a run.
UNUSABLE = (CheckpointError, OSError, LookupError, TypeError, ValueError)
#: The records of an archive that hold weights, random state and the like.
TENSORS = "/data/"
LISTED_AGAIN = "checkpointing: %s is listed again, and stays until you delete it"


def relisted(folder: Path, known: Iterable[tuple[str, int]]) -> list[Entry]:
    """Return entries of the files that are there and hold what is known, oldest first.

    Args:
        folder: where they lie.
        known: (file, step) pairs, which several may have told.
    """
    entries = {}
    for name, step in dict.fromkeys(known):
        if files.is_bare_name(name) and (folder / name).exists():
            try:
                entry = _entry(folder / name, read_checkpoint(folder / name))
            except UNUSABLE as why:
                log.warning("checkpointing: %s is not listed: %s", folder / name, why)
                continue
            if entry.step == step:
                entries[name] = entry
                log.warning(LISTED_AGAIN, folder / name)
    return sorted(entries.values(), key=lambda entry: (entry.epoch, entry.step))


def left_unlisted(
    folder: Path,
    listed: Sequence[Entry],
    source: Path,
    filename: FilenameTemplate,
) -> list[Entry]:
    """Return entries of files that the resumed run wrote where it was saved.

    It died before it could list them, and goes on from another plugin's file. History
    and metrics in it, with the seconds that each epoch took, tell that a file is the
    run's, its name that this plugin has put it there, and its content that it is no
    copy of a listed one. Nothing of the size of a model is read: others wait.

    Args:
        folder: where they lie.
        listed: what is listed there.
        source: what the run goes on from, which is listed elsewhere.
        filename: of the ranked ones.
    """
    found, course = [], _course(peek_state(source))
    for name in files.unlisted(folder, [entry.file for entry in listed]):
        path = folder / name
        state = peek_state(path)
        if _course(state) != course:
            continue
        try:
            values = {**_measured(state), **state["progress"]}
            entry = _entry(path, state) if filename.may_be(name, values) else None
        except UNUSABLE as why:
            log.warning("checkpointing: %s is not listed: %s", path, why)
            continue
        if entry and entry.digest not in {each.digest for each in listed}:
            log.warning(LISTED_AGAIN, path)
            found.append(entry)
    return found


def run_alike(manifest: Manifest, source: Path) -> int | None:
    """Return the run that lists a file of the same tensors as ``source``, or None.

    For where no list tells the random id of the source's run: that one was lost. None
    also where several runs have come to the same, as no file tells then whose it is.
    """
    runs, course = set(), _course(peek_state(source))
    if source.is_dir():  # whose tensors lie in other files
        return None
    for entry in manifest.entries:
        path = manifest.folder / entry.file
        if (
            not path.is_dir()
            and _course(peek_state(path)) == course
            and files.digest_of(path, TENSORS) == files.digest_of(source, TENSORS)
        ):
            runs.add(entry.run)
    return runs.pop() if len(runs) == 1 else None


def _course(state: Mapping[str, Any]) -> str:
    # As text, in which a number that is none is equal to itself.
    return repr([state.get(part) for part in ("progress", "metrics", "history")])


def _measured(state: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured at the step of a state."""
    metrics, now = state["metrics"], state["progress"]["step"]
    return {name: value for name, (value, step, *_) in metrics.items() if step == now}


def _entry(path: Path, state: Mapping[str, Any]) -> Entry:
    progress, measured = state["progress"], _measured(state)
    return Entry(
        file=path.name,
        step=progress["step"],
        epoch=progress["epoch"],
        update=progress["update"],
        is_ranked=not is_name_of_last(path.name),
        reason="listed again",
        num_bytes=files.size_of(path),
        digest=files.digest_of(path),
        is_spared=True,
        metrics={k: v if math.isfinite(v) else None for k, v in measured.items()},
    )
