"""Files that a person names: what can be a path, ``~``, and that a file is one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from training.errors import ConfigError
from training.messages.error_texts import shown

#: Bytes of one name on every common file system.
MOST_NAME_BYTES = 255

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
        ConfigError: it is no path, the system can have no such path, or nobody's home
            folder is called so.
    """
    try:
        named = Path(path)
    except TypeError as error:
        raise ConfigError(
            f"the path is {path!r}; pass a string or a pathlib.Path"
        ) from error
    if mistake := path_mistake(named):
        raise ConfigError(f"{shown(path)} is no path: {mistake}")
    try:
        return named.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"the path {os.fspath(path)!r} begins with the home folder of nobody "
            "known here; write the whole path, from / on"
        ) from error


def path_mistake(path: str | Path) -> str:
    """Return why the system has no such path, ``""`` if it can have one."""
    try:
        names = os.fsencode(path).split(os.sep.encode())
        os.lstat(path)
    except ValueError:  # also what cannot be encoded
        return "it holds a character that no path may have"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "it is too long"
    return "a name in it is too long" if max(map(len, names)) > MOST_NAME_BYTES else ""


def barrier(path: Path) -> Path | None:
    """Return what keeps files from being written below ``path``; None: nothing seen.

    That is the nearest of ``path`` and the folders above it that exists, where it is no
    folder, or none that may be written. Nothing is made.
    """
    nearest = path.absolute()
    while not os.path.lexists(nearest):  # nor where a folder above may not be entered
        nearest = nearest.parent
    is_open = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return None if is_open else nearest


def working_directory() -> str:
    """Return the path of the working directory; ``.`` where that was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return os.curdir


def from_here(path: Path) -> str:
    """Return the path as a person here would type it: from the working directory.

    As it is where it lies elsewhere, and where that directory was deleted meanwhile.
    """
    with contextlib.suppress(OSError, ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


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
