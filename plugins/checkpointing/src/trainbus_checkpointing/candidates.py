"""Which checkpoints of a folder a run may be resumed from, the best choice first."""

from __future__ import annotations

import logging
from pathlib import Path

from trainbus_checkpointing import folder as files
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.retention import Entry
from training import CheckpointError
from training.plugin import count, position_of

log = logging.getLogger(__name__)


def candidates(folder: Path) -> list[tuple[Path, str | None]]:
    """Return (file, None or what is wrong with it): listed ones first, newest first.

    Of those listed only the newest run's, with what it goes on from: an earlier run, or
    a branch that it left, is another. Files that no manifest lists come last, the one
    that got furthest first: a crash may have come between a file and its entry, or
    taken the manifest.

    Raises:
        CheckpointError: what is in the folder cannot be told: a run shall not start
            anew beside its checkpoints.
    """
    try:
        present = files.unlisted(folder, ())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(
            f"the folder of checkpoints {str(folder)!r} cannot be listed "
            f"({error.strerror or error}); make it readable, or name the file to resume"
        ) from error
    try:
        manifest = Manifest.read(folder)
    except (CheckpointError, OSError) as error:
        log.warning("checkpointing: %s", error)
        manifest = Manifest(folder)
    own = manifest.current[::-1]
    found = [(folder / entry.file, _problem(folder, entry)) for entry in own]
    names = {entry.file for entry in manifest.entries}
    strangers = [folder / name for name in present if name not in names]
    strangers.sort(key=position_of, reverse=True)
    found += [(path, None) for path in strangers]
    if manifest.entries and not found:
        log.warning(
            "checkpointing: the newest run in %s has saved nothing yet; %s there, "
            "of others: name one to go on from it, such as %s",
            *(
                folder,
                count(len(manifest.entries), "checkpoint"),
                manifest.entries[-1].file,
            ),
        )
    return found


def _problem(folder: Path, entry: Entry) -> str | None:
    """Return how the file differs from its entry; reading it tells the rest."""
    path = folder / entry.file
    try:
        size = files.size_of(path)
    except OSError as error:
        return f"it is listed, but {error.strerror}"
    if size != entry.num_bytes:
        return f"it has {count(size, 'byte')}, listed are {entry.num_bytes:,}"
    try:
        digest = files.digest_of(path)
    except OSError as error:
        return f"it is listed, but {error.strerror or error}"
    except Exception:  # not even a zip file: whoever reads it will say so
        return None
    return None if digest == entry.digest else "its content is not the one listed"
