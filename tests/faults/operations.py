"""Watch every file operation of Python code below a folder, and act before each.

Installed by the tests around unchanged code: it replaces ``open`` and functions of
``os``. An operation is an open, write, flush, fsync, close, stat, listing, creation,
renaming or deletion.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Called before an operation with its number (from 1), name, path and bytes or target.
Act = Callable[[int, str, str, Any], None]
BY_PATH = ("mkdir", "unlink", "remove", "listdir", "scandir", "stat", "lstat", "utime")
BY_TWO_PATHS = ("replace", "rename")


class Operations:
    """Counts the operations below ``folder``; a context manager.

    Args:
        folder: what is watched.
        act: called before each operation; what it raises is that operation's error.
    """

    def __init__(self, folder: Path, act: Act) -> None:
        self.folder = str(folder)
        self.count = 0
        self._act = act
        self._paths: dict[int, str] = {}  # of open descriptors
        self._real: dict[tuple[Any, str], Any] = {}

    def __enter__(self) -> Operations:
        for module in (builtins, io):
            self._replace(module, "open", self._open(io.open))
        self._replace(os, "open", self._os_open(os.open))
        self._replace(os, "fsync", self._by_descriptor("fsync", os.fsync))
        self._replace(os, "close", self._by_descriptor("close", os.close))
        for name in (*BY_PATH, *BY_TWO_PATHS):
            self._replace(os, name, self._by_path(name, getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        for (module, name), function in self._real.items():
            setattr(module, name, function)

    def happens(self, name: str, path: str, detail: Any = None) -> None:
        """Count one operation and let the test act."""
        self.count += 1
        self._act(self.count, name, path, detail)

    def is_watched(self, path: Any) -> bool:
        """Whether ``path`` is the folder, below it, or an open file of it."""
        if isinstance(path, int):
            return path in self._paths
        if not isinstance(path, (str, os.PathLike)):
            return False
        text = os.fspath(path)
        return isinstance(text, str) and text.startswith(self.folder)

    def _replace(self, module: Any, name: str, function: Any) -> None:
        self._real[module, name] = getattr(module, name)
        setattr(module, name, function)

    def _open(self, real: Any) -> Any:
        def watched(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not self.is_watched(file):
                return real(file, mode, *args, **options)
            path = self._paths[file] if isinstance(file, int) else os.fspath(file)
            if not isinstance(file, int):
                self.happens("open r" if mode[0] == "r" else "open w", path)
            opened = real(file, mode, *args, **options)
            self._paths[opened.fileno()] = path
            return opened if mode[0] == "r" else _Watched(opened, path, self)

        return watched

    def _os_open(self, real: Any) -> Any:
        def watched(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not self.is_watched(path):
                return int(real(path, flags, *args, **options))
            kind = "open w" if flags & os.O_CREAT else "open r"
            self.happens(kind, os.fspath(path))
            descriptor = int(real(path, flags, *args, **options))
            self._paths[descriptor] = os.fspath(path)
            return descriptor

        return watched

    def _by_descriptor(self, name: str, real: Any) -> Any:
        def watched(descriptor: int) -> None:
            if descriptor in self._paths:
                self.happens(name, self._paths[descriptor])
            real(descriptor)
            if name == "close":
                self._paths.pop(descriptor, None)

        return watched

    def _by_path(self, name: str, real: Any) -> Any:
        def watched(path: Any = ".", *args: Any, **options: Any) -> Any:
            if self.is_watched(path) and not isinstance(path, int):
                detail = os.fspath(args[0]) if name in BY_TWO_PATHS else None
                self.happens(name, os.fspath(path), detail)
            return real(path, *args, **options)

        return watched


class _Watched:
    """A file opened for writing, watched."""

    def __init__(self, file: Any, path: str, operations: Operations) -> None:
        self._file, self._path, self._operations = file, path, operations
        self._is_closed = False

    def write(self, content: Any) -> Any:
        self._operations.happens("write", self._path, content)
        return self._file.write(content)

    def flush(self) -> None:
        self._operations.happens("flush", self._path)
        self._file.flush()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._operations._paths.pop(self._file.fileno(), None)
        try:
            self._operations.happens("close", self._path)
        finally:
            self._file.close()

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
