"""Temporary files that a killed process has left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from training.files.durable import LONGEST_STEM
from training.files.holder import CAN_ASK, start_of

log = logging.getLogger(__name__)

_LEFTOVER = re.compile(r"\.tmp-(\d+)$")
_RANDOM = re.compile(r"\.[0-9a-f]{8}$")  # as ``temporary_beside`` puts it before that
_STARTED = time.time()  # seconds; an older file with our pid is a predecessor's


def sweep_leftovers(folder: Path, of: Collection[str] | None = None) -> list[Path]:
    """Delete ``*.tmp-<pid>`` of processes that are gone; return what was deleted.

    Args:
        folder: where they lie; somebody has locked it, or the names in ``of``.
        of: names of the files that they were to become; None: any.
    Raises:
        OSError: the folder cannot be read.
    """
    stems = None if of is None else {name[:LONGEST_STEM] for name in of}
    swept = []
    for path in sorted(folder.iterdir()):
        match = _LEFTOVER.search(path.name)
        if match is None:
            continue
        stem = _RANDOM.sub("", path.name[: match.start()])
        with contextlib.suppress(OSError):  # somebody else may have swept it
            if stems is not None and stem not in stems:
                continue
            if _is_in_use(path, int(match[1])):
                continue
            _delete(path)
            swept.append(path)
    if swept:
        log.info("removed %d leftovers in %s", len(swept), folder)
    return swept


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_in_use(path: Path, pid: int) -> bool:
    """Whether the process that was writing ``path`` may still be at it."""
    # In a container every process may have the same number; and where nobody can be
    # asked for by number, what is open cannot be deleted either.
    if pid == os.getpid() or not CAN_ASK:
        return path.stat().st_mtime >= _STARTED
    try:
        os.kill(pid, 0)  # signal 0 asks, it does not signal
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return start_of(pid) is not None
