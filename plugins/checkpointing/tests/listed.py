"""What a folder of checkpoints holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pt"))


def short(folder: Path) -> str:
    """Name the files by kind and epoch: ``c1 c3 l4``."""
    names = files(folder)
    return " ".join(
        n[0] + str(int("".join(filter(str.isdigit, n[:16]))[:3])) for n in names
    )


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())
