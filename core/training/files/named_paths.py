"""Files that a person names: ``~`` is the home folder, and only a file is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from training.errors import ConfigError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def named_path(path: str | os.PathLike[str]) -> Path:
    """Return the path a person wrote, with ``~`` and ``~name`` as home folders.

    Raises:
        ConfigError: it is no path, no file can have it, or nobody's home folder is
            called so.
    """
    try:
        named = Path(path)
        is_possible = b"\0" not in os.fsencode(named)
    except TypeError as error:
        raise ConfigError(
            f"the path is {path!r}; pass a string or a pathlib.Path"
        ) from error
    except UnicodeEncodeError:  # half of a character
        is_possible = False
    if not is_possible:
        raise ConfigError(
            f"the path is {path!r}, which no file can have; write it without NUL and "
            "without halves of characters"
        )
    try:
        return named.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"the path {os.fspath(path)!r} begins with the home folder of nobody "
            "known here; write the whole path, from / on"
        ) from error


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read its bytes; a pipe or a device is not waited for.

    Raises:
        OSError: it cannot be opened, or is no file; ``strerror`` says what it is.
    """
    _refuse_other_kinds(os.stat(path).st_mode, path)  # opening some devices acts
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse_other_kinds(os.fstat(file.fileno()).st_mode, path)  # it may be new
    except OSError:
        file.close()
        raise
    return file


def _refuse_other_kinds(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "of another kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
