"""Which run of a folder goes on where one is resumed, and up to which of its files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.relisting import relisted, run_alike
from trainbus_checkpointing.saved import Resumed
from training import CheckpointError, ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Continued:
    """What a folder has of the run that goes on.

    Attributes:
        run: its number there; None: it has nothing there.
        until: (epoch, step) of its last entry that the resumed run had come to; later
            ones are of a branch.
        source: what is resumed, where it is listed; None in a fresh run.
        elsewhere: the list of the folder of ``source``, if that is another one.
        saved_by: random id of the run that wrote ``source``, if it is listed there.
    """

    run: int | None
    until: tuple[int, int]
    source: Path | None = None
    elsewhere: Manifest | None = None
    saved_by: str = ""


def continued(
    manifest: Manifest, resumed: Resumed, here: Collection[Path]
) -> Continued:
    """Return which run goes on in a folder; list its files anew if no list is there.

    Args:
        manifest: of the folder.
        resumed: the run that goes on.
        here: those of its paths that lie in the folder.
    """
    paths, position = resumed.paths, resumed.position
    if not paths:
        run = manifest.run_resumed(resumed.known, position, resumed.metrics)
        return Continued(run, position)
    source = listed_first([*reversed([*here]), *paths], position[1])
    if source in here:
        return _continued_here(manifest, resumed, source)
    return _continued_from(source, manifest, resumed)


def _continued_here(manifest: Manifest, resumed: Resumed, source: Path) -> Continued:
    position = resumed.position
    known = [(source.name, position[1]), *resumed.known]
    if not manifest.run:  # no list, or one that was damaged
        manifest.entries = relisted(manifest.folder, known)
    run = manifest.run_resumed(known, position, resumed.metrics)
    # An unlisted file in here is of the newest run.
    return Continued(manifest.run if run is None else run, position, source)


def _continued_from(source: Path, manifest: Manifest, resumed: Resumed) -> Continued:
    """Return which run goes on from a file of another folder."""
    position = resumed.position
    beside = read_beside(source, position)
    named = beside and beside.listed(source.name, position[1])
    saved_by = named.written_by if named else ""
    own = manifest.latest_of(saved_by, position)
    if own is not None:  # what its owner has listed since is of a branch
        until = own.epoch, own.step
        return Continued(own.run, until, source, beside, saved_by)
    run = manifest.run_resumed(resumed.known, position, resumed.metrics)
    if run is None and resumed.is_kept and not saved_by:
        run = run_alike(manifest, source)
    return Continued(run, position, source, beside, saved_by)


def listed_first(paths: Sequence[Path], step: int) -> Path:
    """Return the first of ``paths`` that is listed where it lies, else the first.

    Links to files on another disk are listed where they are, not where they lead.

    Args:
        paths: of one checkpoint, some of which are links.
        step: of its state.
    """
    for path in paths:
        # What is wrong with a list is said by whoever reads the chosen one.
        with contextlib.suppress(CheckpointError, ConfigError, OSError):
            if Manifest.read(path.parent).listed(path.name, step):
                return path
    return paths[0]


def read_beside(source: Path, position: tuple[int, int]) -> Manifest | None:
    """Return the list in the folder of ``source``, opened at that file's run."""
    try:
        manifest = Manifest.read(source.parent)
    except (CheckpointError, OSError) as error:
        log.warning("checkpointing: %s", error)
        return None
    named = manifest.listed(source.name, position[1])
    manifest.begin_run(manifest.run if named is None else named.run, position)
    return manifest
