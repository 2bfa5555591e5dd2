"""Where a command may write a file of results."""

from __future__ import annotations

import os
from pathlib import Path

from training.errors import ConfigError
from training.files.leftovers import sweep_drafts
from training.files.named_paths import named_path

__all__ = ["new_file"]


def new_file(name: str | None, option: str) -> Path | None:
    """Return a path that can be written and holds nothing yet."""
    if name is None:
        return None
    path = named_path(name)
    folder = str(path.parent)
    if path.exists():
        raise ConfigError(f"{option} {name!r} exists; name a new file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name!r}: the folder {folder!r} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {name!r}: the folder {folder!r} cannot be written; name another"
        )
    sweep_drafts(path)
    return path
