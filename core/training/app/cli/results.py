"""Files of results that a command writes: where, and in which form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.files.named_paths import named_path

__all__ = ["new_file", "write_lines"]


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
    return path


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write each record as a line of JSON, all or nothing."""
    from training.checkpoint_io import write_durably

    text = "".join(json.dumps(record) + "\n" for record in records)
    write_durably(path, lambda file: file.write(text.encode()) and None)
