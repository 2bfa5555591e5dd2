"""Whether a text can be a path at all, asked before anything is done with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from training.files.named_paths import named_path

__all__ = ["path_mistake", "require_path", "shown"]

#: Bytes of one name on every common file system.
MOST_NAME_BYTES = 255


def path_mistake(path: str | Path) -> str:
    """Return why the system has no such path, ``""`` if it can have one."""
    try:
        names = os.fsencode(path).split(os.sep.encode())
        longest = max(map(len, names))
        os.lstat(path)
    except ValueError:  # also what cannot be encoded
        return "it holds a character that no path may have"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "it is too long"
    return "a name in it is too long" if longest > MOST_NAME_BYTES else ""


def require_path(path: Path) -> Path:
    """Return ``path``, ``~`` as the home folder; ValueError if it cannot be one."""
    if mistake := path_mistake(path):
        raise ValueError(f"{shown(path)} is no path: {mistake}")
    return named_path(path)


def shown(value: object) -> str:
    """Return ``value`` as Python writes a text, cut at 60 characters."""
    text = repr(str(value))
    return text if len(text) <= 60 else text[:56] + "...'"
