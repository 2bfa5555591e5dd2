"""What a plugin alone may write, from the beginning of a run to its end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.files.lock import RunLock, stamp_of

#: Folders that claims of this process have made. Of all, not of each: one plugin's may
#: hold another's.
_made: set[Path] = set()


class Claim:
    """The right of a plugin to write a file or a folder in the run of one trainer.

    Args:
        plugin: what a user calls the plugin, such as ``csv plugin``.
        option: what the user would set to write elsewhere, such as ``csv.filename``.
    """

    def __init__(self, plugin: str, option: str) -> None:
        self._plugin, self._option = plugin, option
        self._lock: RunLock | None = None
        self._trainer: object = None
        self._file: Path | None = None
        self._stamp: tuple[int, int, int] | None = None

    def require_free(self) -> None:
        """Raise ConfigError if the plugin is at work for a trainer already."""
        if self._trainer is not None:
            raise ConfigError(
                f"this {self._plugin} is at work in another run; make one for each "
                "trainer"
            )

    def begin(self, trainer: object) -> None:
        """Let the plugin be at work for ``trainer`` until ``release``, locked or not.

        For one that locks in a later hook than that in which it makes itself ready.

        Raises:
            ConfigError: it is at work for one already.
        """
        self.require_free()
        self._trainer = trainer

    def take(self, path: Path, trainer: object) -> RunLock:
        """Lock the file ``path`` for the run of ``trainer``; return the lock.

        Its folder is made if there is none; what still is empty then goes with the
        lock, as in a run that is refused later.

        Raises:
            ConfigError: another run has it, or another plugin of this one.
            OSError: its folder cannot be made or written to.
        """
        lock = RunLock(path, self._option, writer=(trainer, self._called(trainer)))
        try:
            _make(path.parent)
            lock.acquire()
        except BaseException:
            _unmake(path.parents)
            raise
        self._lock, self._trainer = lock, trainer
        return lock

    def _called(self, trainer: Any) -> str:
        """Return what the plugin goes by that is being called, as it takes a lock."""
        bus = getattr(trainer, "bus", None)  # none where hooks are called by hand
        name = "user" if bus is None else bus.caller()
        return self._plugin if name == "user" else f"plugin {name!r}"

    def is_of(self, trainer: object) -> bool:
        """Whether ``trainer`` has it: one whose run was refused has not."""
        return self._lock is not None and self._trainer is trainer

    def left(self, file: Path) -> None:
        """Note how ``file`` was left by the last write, or found by the first."""
        self._file, self._stamp = file, stamp_of(file)

    def confirm(self) -> None:
        """Make sure that the run still has it; to be called before a write.

        Raises:
            FolderLostError: another run has it.
            OSError: the lock cannot be read, which says nothing about it.
        """
        if self._lock is not None:  # else whoever calls hooks by hand has it
            self._lock.confirm(self._is_as_left)

    def release(self, trainer: object) -> None:
        """Let others write there, if ``trainer`` has it."""
        if self._trainer is trainer:
            lock, self._lock, self._trainer = self._lock, None, None
            if lock is not None:
                lock.release()
                _unmake(lock.path.parents)

    def _is_as_left(self) -> bool:
        return self._file is None or stamp_of(self._file) in (None, self._stamp)


def _make(folder: Path) -> None:
    """Make ``folder`` and those above it that are not there, and note which."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        _make(folder.parent)
        _make(folder)
    except OSError:  # of one that is there a system may say anything first
        if not folder.is_dir():
            raise
    else:
        _made.add(folder)


def _unmake(folders: Iterable[Path]) -> None:
    """Remove those that were made, from the innermost to the first not empty."""
    for folder in folders:
        if folder in _made:
            with suppress(OSError):
                folder.rmdir()
        if os.path.lexists(folder):
            return
        _made.discard(folder)
