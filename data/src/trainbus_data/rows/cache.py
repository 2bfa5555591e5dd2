"""The user's cache: a bound on what is kept there, and what is in use.

All in it is made again from the user's own files when it is missing. So what was used
longest ago is deleted when there is more than a folder may hold; never what a process
marks as in use, and never but by a process that has just added something.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["InUse", "cache_folder", "delete", "make_room", "was_used"]

logger = logging.getLogger(__name__)

#: Age of what a process that was killed has left half written.
ABANDONED_SECONDS = 24 * 3600


def cache_folder(kind: str) -> Path:
    """Return a folder of the cache, below XDG_CACHE_HOME or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "trainbus" / kind


class InUse:
    """A mark that keeps a file of the cache as long as this, or the process, lives.

    A lock that others share, on an empty file in the folder ``in-use``: the kept one
    itself may be replaced by another process that makes the same. Where the folder
    cannot be written or the file system has no locks, there is no mark.

    Args:
        kept: the file, which need not be there yet.
    """

    def __init__(self, kept: Path) -> None:
        self._file = _locked(_mark_of(kept), is_alone=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"_file": None}  # a worker's: the process that started it has the mark

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def was_used(kept: Path) -> None:
    """Note that a file was used now; its time of the last change stays."""
    with contextlib.suppress(OSError):  # a cache that is only read
        os.utime(kept, ns=(time.time_ns(), kept.stat().st_mtime_ns))


def make_room(
    folder: Path, most_bytes: int, remove: Callable[[Path], object] = os.unlink
) -> None:
    """Delete what was used longest ago, until what is left is within a bound.

    Args:
        folder: of the cache.
        most_bytes: that may be left; more are if they are in use.
        remove: deletes one file; returns False where it is in use.
    """
    kept: list[tuple[int, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process deletes, too
            found = path.stat()
            if ".tmp-" in path.name:
                if time.time() - found.st_ctime > ABANDONED_SECONDS:
                    os.unlink(path)
                continue
            kept.append((found.st_atime_ns, found.st_size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= most_bytes:
            break
        with contextlib.suppress(OSError):
            if remove(path) is not False:
                total -= size
                logger.info("%s, which was used longest ago, is deleted: all there may "
                            "have %d bytes", path, most_bytes)  # fmt: skip


def delete(kept: Path) -> bool:
    """Delete a file and its mark, and return True, unless a process uses it."""
    mark = _mark_of(kept)
    file = _locked(mark, is_alone=True)
    if file is None:  # a process has it, or nobody can tell
        return False
    try:
        kept.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _mark_of(kept: Path) -> Path:
    return kept.parent.with_name("in-use") / kept.name


def _locked(mark: Path, is_alone: bool) -> int | None:
    """Return an open file with a lock; None: there is none.

    Args:
        mark: the file, which another process may delete, and a third one make anew.
        is_alone: whether nobody else may have it, who is not waited for; else others
            share it.
    """
    while True:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(mark, os.O_RDWR | os.O_CREAT)
        except OSError:
            return None
        try:
            if fcntl is not None:
                alone = fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.flock(file, alone if is_alone else fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file), os.stat(mark)):
                return file
        except FileNotFoundError:
            pass  # it was deleted meanwhile: mark it anew
        except OSError:  # no locks here, or another has it
            os.close(file)
            return None
        os.close(file)
