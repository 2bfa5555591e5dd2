"""Write files that survive a crash: whole under their name, or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_durably(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Create or replace ``path`` with what ``write`` puts into a file, all or nothing.

    The bytes go to ``<name>.tmp-<pid>`` in the same folder, are synced, and are renamed
    over ``path``; then the folder is synced. A crash leaves the old file or the new.

    Raises:
        OSError: a file operation failed; ``path`` is as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if not hasattr(os, "O_DIRECTORY"):  # a system that opens no folders
        return path
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` durably as indented JSON; NaN and infinities become null."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"
    return write_durably(path, lambda file: file.write(text.encode()))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (1e999, -1e999)):
        return None
    return value
