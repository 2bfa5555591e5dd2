"""Write files that survive a crash: whole under their name, or not there."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from training.files.named_paths import named_path

log = logging.getLogger(__name__)

#: Characters, of up to four bytes, of a name that its temporary file has too.
LONGEST_STEM = 50
#: What file systems answer that have no way to sync a folder.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_encode = json.JSONEncoder(allow_nan=False).encode


def write_durably(
    path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]
) -> Path:
    """Create or replace ``path`` with what ``write`` puts into a file, all or nothing.

    The bytes go to a new file ``<name>.<random>.tmp-<pid>`` in the same folder, are
    synced, and are renamed over ``path``; then the folder is synced. A crash leaves the
    old file or the new. A symbolic link at either name is never written through; the
    new file's permissions are those that the umask leaves.

    Raises:
        OSError: a file operation failed; ``path`` is as it was before, or, where only
            the folder could not be synced, has the new content, which a crash may lose.
    """
    path = named_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:  # a file of its own, or none
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = str(path)  # the caller knows no other; a write has none
        raise
    _sync_folder(path.parent)
    return path


def temporary_beside(path: Path) -> Path:
    """Return a name in the same folder that nothing has, and that is swept one day."""
    name = f"{path.name[:LONGEST_STEM]}.{os.urandom(4).hex()}"
    return path.with_name(f"{name}.tmp-{os.getpid()}")


def rename_durably(draft: Path, path: Path) -> Path:
    """Give a folder its name, all or nothing; its files are on the disk already.

    Raises:
        OSError: a file operation failed, or something has that name.
    """
    _sync_folder(draft)
    if os.path.lexists(path):  # an empty folder would be replaced without a word
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    os.rename(draft, path)
    try:
        _sync_folder(path.parent)
    except OSError:
        os.rename(path, draft)  # what is not known to last is not there
        raise
    return path


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write ``value`` durably as JSON for people; NaN and infinities become null.

    An entry of a mapping has a line, as has a row of a list of mappings or lists.
    """
    text = _lines(finite(value)) + "\n"
    return write_durably(path, lambda file: file.write(text.encode()))


def _lines(value: Any, indent: str = "") -> str:
    # By json's own ``indent`` each number would pass through an encoder in Python.
    inner = f"{indent}  "
    if isinstance(value, dict) and value:
        items = [f"{_encode(k)}: {_lines(v, inner)}" for k, v in value.items()]
        begin, end = "{}"
    elif isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        items = [_encode(each) for each in value]
        begin, end = "[]"
    else:
        return _encode(value)
    return f"{begin}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{end}"


def _sync_folder(path: Path) -> None:
    """Wait until the names in ``path`` are on the disk, where that can be asked."""
    if not hasattr(os, "O_DIRECTORY"):  # a system that opens no folders
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
        _say_unsynced(path, error.strerror)
    finally:
        os.close(folder)


@functools.cache
def _say_unsynced(path: Path, why: str) -> None:
    """Say it once a folder; every file in it is whole and in place."""
    log.warning(
        "the file system of %s cannot sync a folder (%s): after a power loss an "
        "earlier state of the folder may be found there",
        *(path, why),
    )


def finite(value: Any) -> Any:
    """Return a JSON value with null in place of NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
