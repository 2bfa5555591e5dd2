"""Rows of single steps in a CSV file: what was logged, and what was measured there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from trainbus_logging.csv_file import NOTES, LogFile, as_cells
from training.plugin import Readback, count

logger = logging.getLogger(__name__)

#: Rows that wait for one another: a write costs more than a row.
MOST_WAITING = 100
#: Rows that wait for a disk; more of them would fill the memory of a long run.
MOST_KEPT = 10_000


class StepRows:
    """The file of steps: a row for each, in order, written some at a time.

    Args:
        path: of the file; what is there is touched when the first row is written.
    """

    def __init__(self, path: Path) -> None:
        self.file = LogFile(path)
        #: Cells of the latest row, by which the file is known again; none: no row yet.
        self._last: dict[str, str] = {}
        self._waiting: dict[int, dict[str, Any]] = {}  # step -> values, or on their way
        self._added = 0  # rows since the last try to write
        #: Rows that no memory was left for: the first step, the last, how many.
        self._dropped: tuple[int, int, int] | None = None
        self._is_synced = True  # nothing is written that is not on the disk

    def add(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Put values into the row of ``step``; ``Readback`` ones may be on their way.

        Args:
            step: no earlier one than that of the call before.
            epoch: that is under way, from 1.
            values: by column.
        """
        self._added += step not in self._waiting
        row = self._waiting.setdefault(step, {"step": step, "epoch": epoch})
        row.update(values)
        if len(self._waiting) > MOST_KEPT:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            first, _, number = self._dropped or (oldest, oldest, 0)
            self._dropped = first, oldest, number + 1

    @property
    def are_many(self) -> bool:
        """Whether as many rows wait, and came since the last try, as are worth one."""
        return min(len(self._waiting), self._added) >= MOST_WAITING

    @property
    def missing(self) -> tuple[int, int, int] | None:
        """Of rows that are not in the file: the first step, the last, how many."""
        waiting = list(self._waiting)
        if not waiting:
            return self._dropped
        first, _, number = self._dropped or (waiting[0], 0, 0)
        return first, waiting[-1], number + len(waiting)

    def last_row(self) -> dict[str, str]:
        """Return the cells of the latest row; waits for what is on its way."""
        for row in list(self._waiting.values())[-1:]:
            return self._merged(self._last, _settled(row))
        return self._last

    def write(self, durably: bool) -> None:
        """Write the rows that wait.

        Args:
            durably: wait for values that are on their way, and until all is on the
                disk. Else rows from the first on whose values are not here stay.
        Raises:
            OSError: the file cannot be written; all rows wait on.
        """
        ready = []
        for step, row in self._waiting.items():
            if not durably and not _is_here(row):
                break
            ready.append((step, _settled(row)))
        is_there = self.file.path.is_file()
        if not ready and (self._is_synced or not durably or not is_there):
            return
        self._added = 0
        self.file.begin()
        rows = [row for _, row in ready]
        is_again = bool(rows) and rows[0]["step"] == self._last.get("step")
        self._is_synced = False  # as long as it is not known
        if not is_again and self.file.append(rows, durably):
            self._is_synced = durably
        else:
            columns, found = self.file.read()
            # What is there of later ones is of a write or a resume that failed.
            end = int(self._last.get("step", 0))
            self._replace(columns, [*_until(end, found), *rows])
        for step, row in ready:
            del self._waiting[step]
            self._last = self._merged(self._last, row)

    def load(self, last: Mapping[str, str]) -> None:
        """Take over what ``last_row`` was when the run was saved."""
        self._last = dict(last)

    def resume(self) -> None:
        """Go on behind the latest row, dropping those after it.

        A file without that row is another run's, or has lost some: it is set aside.
        """
        if not self._last:  # it has no row yet
            return
        columns, rows = self.file.read()
        last, self._last = self._last, {}
        kept = _until(int(last["step"]), rows)
        end = kept[-1] if kept else {}
        if any(end.get(name, "") != last[name] for name in last if name != NOTES):
            logger.warning(
                "%s has no row of step %s as this run wrote it, and begins anew",
                *(self.file.path, last["step"]),
            )
            return
        if len(rows) > len(kept):
            logger.info(
                "%s: dropped %s that the run will write again",
                *(self.file.path, count(len(rows) - len(kept), "row")),
            )
        self.file.is_own, self._last = True, last
        self._replace(columns, kept)

    def _replace(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Write the whole file, of several rows of a step one."""
        by_step: dict[str, dict[str, str]] = {}
        for row in rows:
            by_step[row["step"]] = self._merged(by_step.get(row["step"], {}), row)
        self.file.replace(columns, list(by_step.values()))
        self._is_synced = True

    @staticmethod
    def _merged(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
        """Return ``new``, and of the same step what ``old`` has beside it."""
        if old.get("step") != new["step"]:
            return dict(new)
        notes = [row[NOTES].split("; ") for row in (old, new) if row.get(NOTES)]
        told = {NOTES: "; ".join(dict.fromkeys(chain(*notes)))} if notes else {}
        return {**old, **new, **told}


def _is_here(row: Mapping[str, Any]) -> bool:
    return all(each.is_here for each in row.values() if isinstance(each, Readback))


def _settled(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a row; waits for values that are on their way."""
    return as_cells(
        {
            name: value.value() if isinstance(value, Readback) else value
            for name, value in row.items()
        }
    )


def _until(step: int, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows of steps up to ``step``; those of other files are none."""
    cells = ((row, row.get("step", "")) for row in rows)
    return [row for row, cell in cells if cell.isdecimal() and int(cell) <= step]
