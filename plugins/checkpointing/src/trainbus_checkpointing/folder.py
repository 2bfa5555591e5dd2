"""The folder of checkpoints: made, and looked into. Only ``remove`` deletes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import time
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from trainbus_checkpointing.filename import SUFFIXES
from training import CheckpointError, ConfigError
from training.plugin import (
    STATE,
    Strategy,
    open_file,
    rename_durably,
    temporary_beside,
    write_durably,
    writing,
)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``ConfigError`` about ``folder``."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"checkpointing.save_dir is {str(folder)!r}, which cannot be written to "
            f"({error.strerror or error}); choose another folder"
        ) from error


def require_there(folder: Path, error: OSError) -> None:
    """Raise ``CheckpointError`` where ``folder`` is gone, which caused ``error``."""
    if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):
        raise CheckpointError(
            f"the folder of checkpoints {str(folder)!r} is gone (moved or deleted "
            "while the run was on); put it back and resume, or choose another "
            "checkpointing.save_dir"
        ) from error


def require_shared(folder: Path, strategy: Strategy, patience: float = 10.0) -> None:
    """See that every process of the run finds what the main one writes in ``folder``.

    Args:
        folder: of checkpoints, from which each of them resumes.
        strategy: by which processes the run is computed; all of them call this.
        patience: seconds in which a file of another machine may come into sight.
    Raises:
        ConfigError: one does not see it; names its rank and machine.
    """
    with usable(folder):
        name = strategy.on_main(lambda: _token_in(folder))
    found = strategy.gather((_appears(folder / name, patience), platform.node()))
    strategy.on_main(lambda: remove(folder, name))
    blind = [f"rank {r} on {node}" for r, (sees, node) in enumerate(found) if not sees]
    if blind:
        raise ConfigError(
            f"checkpointing.save_dir is {str(folder)!r}, where {', '.join(blind)} does "
            "not find what the main process writes; choose a folder that all see"
        )


def _token_in(folder: Path) -> str:
    # Under a name that is swept: the process may be killed before it removes it.
    path = folder / f"seen.{os.urandom(4).hex()}.tmp-{os.getpid()}"
    path.touch(exist_ok=False)
    return path.name


def _appears(path: Path, patience: float) -> bool:
    until = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def unlisted(folder: Path, listed: Collection[str]) -> list[str]:
    """Return the names of checkpoints in ``folder`` that are not in ``listed``."""
    names = (path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES))
    return sorted(set(names) - set(listed))


def is_bare_name(name: str) -> bool:
    """Whether ``name`` is one that a checkpoint in a folder may have."""
    is_bare = name.isprintable() and not name.startswith(".")
    return is_bare and name.endswith(SUFFIXES) and not set(name) & {"/", "\\"}


def free_name(folder: Path, name: str) -> str:
    """Return ``name``, or with ``-v2``, ``-v3``, ... if such a file exists already."""
    stem, dot, suffix = name.rpartition(".")
    version = 1
    while os.path.lexists(folder / name):  # also a link that leads nowhere
        version += 1
        name = f"{stem}-v{version}{dot}{suffix}"
    return name


def copy(source: Path, path: Path) -> None:
    """Copy a checkpoint, a file or a folder, durably; all or nothing.

    Raises:
        CheckpointError: it could not be read or written; nothing has that name.
    """
    with writing(path):
        if not source.is_dir():
            _copy_file(source, path)
            return
        draft = temporary_beside(path)
        try:
            draft.mkdir()
            for each in sorted(source.iterdir()):
                _copy_file(each, draft / each.name)
            rename_durably(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _copy_file(source: Path, path: Path) -> None:
    with open_file(source) as file:
        write_durably(path, lambda copied: shutil.copyfileobj(file, copied))


def remove(folder: Path, name: str) -> None:
    """Delete one listed checkpoint; one that is gone already is fine."""
    assert name == os.path.basename(name), name
    path = folder / name
    try:
        if path.is_dir() and not path.is_symlink():
            # All of it goes at once; what is left of it then is swept one day.
            draft = temporary_beside(path)
            os.rename(path, draft)
            shutil.rmtree(draft)
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("checkpointing: %s stays: %s", path, error)


def size_of(path: Path) -> int:
    """Return the bytes of a checkpoint: of a file, or of all files in a folder.

    Raises:
        OSError: it is not there.
    """
    if not path.is_dir():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.iterdir())


def digest_of(path: Path, part: str = "") -> str:
    """Return a SHA-256 over name, size and CRC32 of every record of a checkpoint.

    It identifies the content without reading it: loading checks each CRC32. Of a folder
    it is that of the file which has the digests of all others.

    Args:
        path: of the checkpoint.
        part: only of the records that have this in their name.
    Raises:
        OSError: it cannot be read, or is no file.
        zipfile.BadZipFile: it is no archive.
    """
    path = path / STATE if path.is_dir() else path
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if part in info.filename]
    records = [[info.filename, info.file_size, info.CRC] for info in infos]
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()
