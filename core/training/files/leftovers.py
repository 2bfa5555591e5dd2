"""Temporary files that a killed process has left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from training.files.durable import LONGEST_STEM
from training.files.holder import CAN_ASK, start_of
from training.messages.tables import count

log = logging.getLogger(__name__)

#: As ``temporary_beside`` names it; what is random there earlier releases left out.
_LEFTOVER = re.compile(r"(?s)(?P<stem>.*?)(?P<random>\.[0-9a-f]{8})?\.tmp-(?P<pid>\d+)")
#: Seconds after which nobody is taken to be at work on what has not changed.
_IDLE = 24 * 3600
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
    found = _leftovers(folder)
    return _sweep(
        folder, (each for each in found if stems is None or each[1]["stem"] in stems)
    )


def sweep_drafts(path: Path) -> None:
    """Delete what processes that are gone had written of ``path``, which nobody locks.

    So a process of another host or container may be at work on one, and here its number
    says nothing: what has changed within a day stays. So does what only looks like one,
    without what is random in the name, and one of a name longer than drafts have of it.
    """
    latest = time.time() - _IDLE
    found = (
        (draft, name)
        for draft, name in _leftovers(path.parent)
        if name["stem"] == path.name and len(path.name) <= LONGEST_STEM
        if name["random"] and _changed_at(draft) < latest
    )
    with contextlib.suppress(OSError):  # a folder to write in may not be one to read
        _sweep(path.parent, found)


def _leftovers(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.iterdir()):
        if name := _LEFTOVER.fullmatch(path.name):
            yield path, name


def _sweep(folder: Path, found: Iterable[tuple[Path, re.Match[str]]]) -> list[Path]:
    swept = []
    for path, name in found:
        with contextlib.suppress(OSError):  # somebody else may have swept it
            if _is_in_use(path, int(name["pid"])):
                continue
            _delete(path)
            swept.append(path)
    if swept:
        log.info("removed %s in %s", count(len(swept), "leftover"), folder)
    return swept


def _changed_at(path: Path) -> float:
    """Return when a file was written last, or a folder or anything in it."""
    last = 0.0
    for each in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # whoever is at work took it away
            last = max(last, each.lstat().st_mtime)
    return last


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
