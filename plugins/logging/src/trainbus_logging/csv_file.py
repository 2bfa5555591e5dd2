"""What the files of the CSV log are made of: cells, lines, and how they are written."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.plugin import open_file, write_durably

logger = logging.getLogger(__name__)

#: The column that tells what an empty cell stands for.
NOTES = "notes"


def as_cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return a row's cells as text; floats keep every digit, non-finite ones none.

    A metric that has the name of the notes is below ``metric/``.
    """
    cells, notes = {}, []
    for metric, value in metrics.items():
        name = f"metric/{metric}" if metric == NOTES else metric
        is_bad = isinstance(value, float) and not math.isfinite(value)
        cells[name] = "" if is_bad or value is None else str(value)
        if is_bad:
            notes.append(f"{name}={value}")
    if notes:
        cells[NOTES] = "; ".join(notes)
    return cells


def append_rows(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    durably: bool = True,
) -> None:
    """Append lines to a file that is there; ``durably``: until all is on the disk."""
    with open(path, "ab", opener=_without_links) as file:
        file.write(as_text(columns, rows).encode())
        file.flush()
        if durably:
            os.fsync(file.fileno())


def replace_rows(
    path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> None:
    """Write the whole file at once: readers see the old one or the new one."""
    header = dict(zip(columns, columns, strict=True))
    text = as_text(columns, [header, *rows])
    write_durably(path, lambda file: file.write(text.encode()))


def set_aside(path: Path) -> None:
    """Rename an earlier log to the next free number, if there is one."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_suffix(f".{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)
    logger.info("%s was there and is now %s", path, aside.name)


def as_text(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Return CSV lines of ``rows``; a column that a row lacks is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return text.getvalue()


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and complete rows of a CSV file; a torn last line is left out."""
    with open_file(path) as file:  # a pipe or a device is not waited for
        text = file.read().decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole)))
    if not lines:
        return [], []
    columns, *rows = lines
    return columns, [
        dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)
    ]


def _without_links(path: str, flags: int) -> int:
    """Open the file itself: somebody may have put a symbolic link in its place."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
