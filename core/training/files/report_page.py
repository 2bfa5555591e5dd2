"""Tell the page that ``trainbus report`` writes from a file of somebody's own."""

from __future__ import annotations

from pathlib import Path

from training.files.named_paths import open_file

__all__ = ["REPORT", "is_report"]

#: What it is called in a folder of runs.
REPORT = "report.html"
#: How the title of each ends, and the bytes within which it does.
TITLE, MOST_HEAD = b": report of trainbus</title>", 1 << 16


def is_report(path: Path) -> bool:
    """Whether the file is such a page."""
    try:
        with open_file(path) as file:
            return TITLE in file.read(MOST_HEAD)
    except OSError:
        return False
