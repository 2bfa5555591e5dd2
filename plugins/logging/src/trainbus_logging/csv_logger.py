"""Write one CSV row an epoch; never lose an earlier log, never write a row twice."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_logging.csv_file import (
    append_rows,
    as_cells,
    read_rows,
    replace_rows,
    set_aside,
)
from training import ConfigError, checked_options
from training.callbacks import Callback
from training.plugin import Claim, Plan, named_path, sweep_leftovers

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import PlannedRun

logger = logging.getLogger(__name__)


class CSVLoggerCallback(Callback):
    """Append the history row of each epoch to a CSV file, durably.

    Columns are those of the first row; a metric that appears later adds one, and the
    file is replaced by one with the new header. A NaN or infinite value is an empty
    cell, and the column ``notes`` says what it was. A run whose history is empty
    renames a file that is already there (``training_log.csv`` to
    ``training_log.1.csv``) when its first row is due. A resumed run with a history does
    so at once, unless the file's rows are its own; then it drops those after the
    checkpoint, and writes from the history what is missing. So does the row after one
    that failed. One run writes it at a time: ``<filename>.lock`` keeps others out.

    Args:
        filename: path of the file, relative to the working directory; None:
            ``training_log.csv`` in the run's ``save_dir``.
    Raises:
        ConfigError: ``filename`` is no path.
    """

    name = "csv"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.1,<2"

    @checked_options
    def __init__(self, filename: str | os.PathLike[str] | None = None) -> None:
        self._filename = filename
        #: Where the rows go; known from ``on_setup`` on.
        self.path = named_path(filename or "training_log.csv")
        self._columns: list[str] = []
        self._is_fresh = True  # what is there may be an earlier log
        self._is_torn = False  # a row may be there in part
        self._claim = Claim("csv plugin", "csv.filename")

    def plan(self, run: PlannedRun) -> Plan:
        """Return what a run writes, or why it cannot; touches nothing."""
        path = self._place(run.save_dir)
        mistake = _mistake(path.absolute())
        return Plan(files={path: ""}, conflicts=[mistake] if mistake else [])

    def on_setup(self, trainer: Trainer) -> None:
        """Fix the path, so that a later change of folder does not move it; lock it.

        Raises:
            ConfigError: the path is a folder or a device, its folder cannot be made or
                written to, or another run writes there.
        """
        self._claim.require_free()
        self.path = self._place(trainer.save_dir).absolute()
        if mistake := _mistake(self.path):
            raise ConfigError(mistake)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"csv.filename is {str(self.path)!r}, whose folder cannot be made: "
                f"{error.strerror}"
            ) from error
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            self._claim.take(lock, trainer)
            sweep_leftovers(self.path.parent, [self.path.name])
        except OSError as error:
            raise ConfigError(
                f"csv.filename is {str(self.path)!r}, whose folder cannot be written "
                f"to: {error.strerror}"
            ) from error
        self._claim.left(self.path)

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Make the file that of the history; with none, touch nothing yet."""
        self._is_fresh = True
        self._columns, self._is_torn = [], False
        if resumed and trainer.history:
            self._claim.confirm()
            self._resume(cells_of(trainer))
            self._claim.left(self.path)

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Append a row and wait until it is on the disk.

        Raises:
            FolderLostError: another run writes there by now.
        """
        self._claim.confirm()
        if self._is_fresh:
            set_aside(self.path)
            self._is_fresh = False
        row = as_cells(metrics)
        is_new = not row.keys() <= set(self._columns)
        if is_new or self._is_torn or not self.path.is_file():
            self._replace(*self._read(), cells_of(trainer))
        else:
            self._is_torn = True  # as long as it is not known to be whole
            append_rows(self.path, self._columns, [row])
        self._is_torn = False
        self._claim.left(self.path)

    def on_close(self, trainer: Trainer) -> None:
        """Let others write there."""
        self._claim.release(trainer)

    def _place(self, save_dir: Path) -> Path:
        default = save_dir / "training_log.csv"
        return named_path(default if self._filename is None else self._filename)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        return read_rows(self.path) if self.path.is_file() else ([], [])

    def _resume(self, history: Sequence[Mapping[str, str]]) -> None:
        columns, rows = self._read()
        if "step" not in columns or not are_of(history, rows):
            set_aside(self.path)  # if it is not gone
            columns, rows = [], []
            logger.warning("%s is written anew from the history", self.path)
        elif len(rows) > len(history):
            logger.info(
                "%s: dropped %d rows that the run will write again",
                *(self.path, len(rows) - len(history)),
            )
        self._is_fresh = False
        self._replace(columns, rows, history)

    def _replace(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, str]],
        history: Sequence[Mapping[str, str]],
    ) -> None:
        """Write the whole file at once: readers see the old one or the new one.

        Its rows are those of the history; what else ``rows`` of the file say stays.
        """
        nothing: Mapping[str, str] = {}
        pairs = zip_longest(rows[: len(history)], history, fillvalue=nothing)
        rows = [{**row, **cells} for row, cells in pairs]
        columns = list(dict.fromkeys(chain(columns, *rows)))
        replace_rows(self.path, columns, rows)
        self._columns = columns


def _mistake(path: Path) -> str:
    """Return why ``path`` can be no log, ``""`` if it can be one."""
    if path.is_dir():
        return f"csv.filename is {str(path)!r}, which is a folder"
    is_device = path.is_char_device() or path.is_block_device()
    if is_device and not path.is_symlink():
        # Set aside, it would be gone for all programs.
        return f"csv.filename is {str(path)!r}, which is a device; name a file"
    return ""


def cells_of(trainer: Trainer) -> list[dict[str, str]]:
    """Return the rows of the history so far, as the file has them."""
    return [as_cells(row) for row in trainer.history]


def are_of(
    history: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, str]]
) -> bool:
    """Whether ``rows`` are those of a run with this history, as far as both go."""
    return all(
        row.get(name, "") == cell
        for row, cells in zip(rows, history, strict=False)
        for name, cell in cells.items()
    )
