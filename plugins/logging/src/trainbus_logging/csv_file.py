"""What the files of the CSV log are made of: cells, lines, and how they are written."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from training.plugin import open_file, write_durably

logger = logging.getLogger(__name__)

#: The column that tells what an empty cell stands for.
NOTES = "notes"


class LogFile:
    """A CSV file that a run writes, and how it stands.

    Args:
        path: of the file; what is there may be an earlier log.
    Attributes:
        columns: of the file as the run left it; None: it has not written it yet, or
            something may be there in part or lack, so that all is to be written anew.
        is_own: whether what is there is this run's.
        is_failing: whether the last write failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        self.is_own = self.is_failing = False

    def begin(self) -> None:
        """Set an earlier log aside, the first time."""
        if not self.is_own:
            self.set_aside()
            self.is_own = True

    def set_aside(self) -> None:
        """Rename what is there, if anything is, to the next free number."""
        if not self.path.exists():
            return
        number = 1
        while (aside := self.path.with_suffix(f".{number}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(aside)
        logger.info("%s was there and is now %s", self.path, aside.name)

    def read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return columns and rows, but for a torn last line.

        A file that is no log is set aside, unless it is empty.
        """
        text = ""
        if self.path.is_file():
            with open_file(self.path) as file:  # a pipe or a device is not waited for
                text = file.read().decode(errors="replace")
        whole = text[: text.rfind("\n") + 1]
        columns, *rows = list(csv.reader(io.StringIO(whole))) or [[]]
        if "step" not in columns:
            if text:
                self.set_aside()
            return [], []
        complete = [row for row in rows if len(row) == len(columns)]
        return columns, [dict(zip(columns, row, strict=True)) for row in complete]

    def append(self, rows: Sequence[Mapping[str, str]], durably: bool = True) -> bool:
        """Append rows, and return whether they are there; else all is to be replaced.

        Args:
            rows: by column.
            durably: wait until all is on the disk.
        """
        columns, self.columns = self.columns, None  # as long as it is not known
        if columns is None or not self.path.is_file():
            return False
        if not set(chain(*rows)) <= set(columns):
            return False
        with open(self.path, "ab", opener=_without_links) as file:
            file.write(as_text(columns, rows).encode())
            file.flush()
            if durably:
                os.fsync(file.fileno())
        self.columns = columns
        return True

    def replace(
        self, columns: Sequence[str], rows: Sequence[Mapping[str, str]]
    ) -> None:
        """Write the whole file at once: readers see the old one or the new one.

        Args:
            columns: to begin with; those that only rows have come behind.
            rows: all of the file.
        """
        columns = list(dict.fromkeys(chain(columns, *rows)))
        text = as_text(columns, [dict(zip(columns, columns, strict=True)), *rows])
        write_durably(self.path, lambda file: file.write(text.encode()))
        self.columns = columns


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


def as_text(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Return CSV lines of ``rows``; a column that a row lacks is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return text.getvalue()


def _without_links(path: str, flags: int) -> int:
    """Open the file itself: somebody may have put a symbolic link in its place."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
