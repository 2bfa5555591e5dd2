"""Write a CSV row an epoch, and one every so many steps to a file beside it.

An earlier log is never lost, and no row is written twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from trainbus_logging.csv_file import NOTES, LogFile, as_cells
from trainbus_logging.step_rows import MOST_KEPT, StepRows
from training import ConfigError, checked_options
from training.callbacks import Callback
from training.plugin import (
    Claim,
    Plan,
    count,
    heard_if,
    named_path,
    require_state,
    sweep_leftovers,
)

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import LazyLogs, PlannedRun

logger = logging.getLogger(__name__)

#: Values of a step that keep their names as columns; others are below ``train/``.
LOGGED = ("loss", "lr", "grad_norm")
#: Columns of a step's row that no metric may have: it is below ``metric/`` there.
TAKEN = ("step", "epoch", *LOGGED, NOTES)


class CSVLoggerCallback(Callback):
    """Append the history row of each epoch to a CSV file, durably.

    Columns are those of the first row; a metric that appears later adds one, and the
    file is replaced by one with the new header. A NaN or infinite value is an empty
    cell, and the column ``notes`` says what it was. A run whose history is empty
    renames a file that is already there (``training_log.csv`` to
    ``training_log.1.csv``) when its first row is due. A resumed run with a history does
    so at once, unless the file's rows are its own; then it drops those after the
    checkpoint, and writes from the history what is missing. So does the row after one
    that failed, as on a full disk, and the end of the run; a warning says so once until
    then. One run writes it at a time: ``<filename>.lock`` keeps others out.

    With ``every_n_steps`` there is a second file of the same ways beside it,
    ``training_log.steps.csv``. It has a row for each N-th step: ``step``, the ``epoch``
    under way, ``loss``, ``lr`` of the first group, ``grad_norm`` where gradients are
    clipped, and ``train/<name>`` for what ``step_fn`` returns beside the loss; and one
    for each step at which something was measured, in or at the end of an epoch. Both
    of one step are one row. Rows wait until there are 100, or something is measured;
    by each checkpoint, and at the end, all are on the disk.

    Args:
        filename: path of the file, relative to the working directory; None:
            ``training_log.csv`` in the run's ``save_dir``.
        every_n_steps: steps between rows of the second file; None: there is none. No
            row makes the run wait for the device.
    Raises:
        ConfigError: ``filename`` is no path, or ``every_n_steps`` below 1.
    """

    name = "csv"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.1,<2"
    before = ("checkpointing",)  # whose checkpoint has no row that the file has not

    @checked_options
    def __init__(
        self,
        filename: str | os.PathLike[str] | None = None,
        every_n_steps: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        self._filename = filename
        self.every_n_steps = every_n_steps
        #: Where the rows go; known from ``on_setup`` on.
        self.path = named_path(filename or "training_log.csv")
        self._claim = Claim("csv plugin", "csv.filename")
        self._begin()

    def _begin(self) -> None:
        self._file, self._steps = LogFile(self.path), StepRows(steps_path(self.path))
        self._num_rows = 0  # of the history so far, and of them
        self._known = 0  # those that are in the file, from the first on

    def state_dict(self) -> dict[str, Any]:
        """Return the latest row of a step, by which its file is known again."""
        last = self._steps.last_row()
        return {"last_row": last} if last else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember the latest row of a step.

        Raises:
            CheckpointError: it is none.
        """
        row = state.get("last_row", {})
        is_right = isinstance(row, Mapping) and all(
            isinstance(each, str) for each in (*row, *row.values())
        )
        is_right = is_right and (not row or row.get("step", "").isdecimal())
        wanted = "the cells of a step's row by column"
        require_state(self.name, is_right, "last_row", row, wanted)
        self._steps.load(row)

    def plan(self, run: PlannedRun) -> Plan:
        """Return what a run writes, or why it cannot; touches nothing."""
        path = self._place(run.save_dir)
        files = [path, steps_path(path)] if self.every_n_steps else [path]
        mistake = self._mistake(path.absolute())
        return Plan(
            files=dict.fromkeys(files, ""), conflicts=[mistake] if mistake else []
        )

    def on_setup(self, trainer: Trainer) -> None:
        """Fix the path, so that a later change of folder does not move it.

        Raises:
            ConfigError: the path is a folder or a device, or the plugin is at work for
                another trainer.
        """
        path = self._place(trainer.save_dir).absolute()
        if mistake := self._mistake(path):
            raise ConfigError(mistake)
        self._claim.begin(trainer)
        self.path = path
        self._begin()

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Lock the file, and make it that of the history; with none, touch it not yet.

        Who holds a whole folder has locked it in ``on_setup``: another run is told of
        there first, and not of one file in it.

        Raises:
            ConfigError: its folder cannot be made or written to, or another run writes
                there.
        """
        self._take(trainer)
        if resumed and trainer.history:
            self._num_rows = len(trainer.history)
            self._try(self._file, lambda: self._resume(cells_of(trainer)))
        if resumed and self.every_n_steps:
            self._try(self._steps.file, self._steps.resume)

    def _take(self, trainer: Trainer) -> None:
        folder = self.path.parent
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            if folder.is_symlink():
                folder.stat()  # one that leads nowhere "exists" to mkdir
            self._claim.take(lock, trainer)
            names = [self.path.name, self._steps.file.path.name]
            sweep_leftovers(folder, names)
        except OSError as error:
            raise ConfigError(
                f"csv.filename is {str(self.path)!r}, whose folder cannot be made or "
                f"written to: {error.strerror}"
            ) from error
        self._claim.left(self.path)

    @heard_if(lambda self: self.every_n_steps)
    def on_step_end(self, trainer: Trainer, logs: LazyLogs) -> None:
        """Note the step, if it is due.

        Raises:
            FolderLostError: another run writes there by now.
        """
        if not self.every_n_steps or trainer.step % self.every_n_steps:
            return
        if self._steps.are_many:  # not with this one, at which more may be measured
            self._write_steps(durably=False)
        columns = {name: name if name in LOGGED else f"train/{name}" for name in logs}
        values = {column: logs.later(name) for name, column in columns.items()}
        self._steps.add(trainer.step, epoch_of(trainer), values)

    @heard_if(lambda self: self.every_n_steps)
    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Put what an evaluation has measured into the row of the step.

        Raises:
            FolderLostError: another run writes there by now.
        """
        values = {
            f"metric/{name}" if name in TAKEN else name: value
            for name, value in metrics.items()
            if name != "train_loss"  # it is the epoch's
        }
        if values:
            self._steps.add(trainer.step, epoch_of(trainer), values)
            self._write_steps(durably=False)

    @heard_if(lambda self: self.every_n_steps)
    def on_checkpoint(self) -> None:
        """Wait until the rows of all steps so far are on the disk.

        Raises:
            FolderLostError: another run writes there by now.
        """
        self._write_steps(durably=True)

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Append a row and wait until it is on the disk.

        Raises:
            FolderLostError: another run writes there by now.
        """
        self._num_rows = len(trainer.history)
        self._try(self._file, lambda: self._write_rows(trainer))

    def on_close(self, trainer: Trainer) -> None:
        """Write the rows that wait, as those of a run that failed; let others write.

        Raises:
            FolderLostError: another run writes there by now.
        """
        try:
            if self._claim.is_of(trainer):
                if self._num_rows and self._file.columns is None:
                    self._try(self._file, lambda: self._write_rows(trainer))
                if self.every_n_steps:
                    self._write_steps(durably=True)
                first, last = self._known + 1, self._num_rows
                epochs = (first, last, last - self._known) if last >= first else None
                _tell_missing(self._file, "epochs", epochs)
                _tell_missing(self._steps.file, "steps", self._steps.missing)
        finally:
            self._claim.release(trainer)

    def _try(self, file: LogFile, write: Callable[[], None]) -> None:
        """Call ``write``; what ``file`` cannot take, as on a full disk, waits.

        A run is worth more than its log, and a log more than one write of it.
        """
        try:
            self._claim.confirm()
            write()
            file.is_failing = False
        except OSError as error:
            was_failing, file.is_failing = file.is_failing, True
            file.columns = None  # nobody knows how it stands
            if was_failing:
                return  # it was told, or has ended the run
            if self.failure == "fatal":  # a log is worth as much, to whoever says so
                raise
            kept = f"the latest {MOST_KEPT} of " if file is self._steps.file else ""
            logger.warning(
                "csv: %s cannot be written (%s); %sits rows wait until it can be",
                *(file.path, error.strerror or error, kept),
            )

    def _write_steps(self, durably: bool) -> None:
        self._try(self._steps.file, lambda: self._steps.write(durably))

    def _write_rows(self, trainer: Trainer) -> None:
        """Append a row, if all before it are there; else write those of the history."""
        self._file.begin()
        if not self._file.append([as_cells(trainer.history[-1])]):
            self._replace(*self._file.read(), cells_of(trainer))
        self._known = self._num_rows
        self._claim.left(self.path)

    def _place(self, save_dir: Path) -> Path:
        default = save_dir / "training_log.csv"
        return named_path(default if self._filename is None else self._filename)

    def _mistake(self, path: Path) -> str:
        """Return why no log can be at ``path``, or no steps' beside it."""
        mistake = mistake_of(path, "csv.filename is")
        if self.every_n_steps and not mistake:
            mistake = mistake_of(steps_path(path), "csv.every_n_steps writes to")
        return mistake

    def _resume(self, history: Sequence[Mapping[str, str]]) -> None:
        columns, rows = self._file.read()
        if not columns or not are_of(history, rows):
            self._file.set_aside()
            columns, rows = [], []
            logger.warning("%s is written anew from the history", self.path)
        elif len(rows) > len(history):
            logger.info(
                "%s: dropped %s that the run will write again",
                *(self.path, count(len(rows) - len(history), "row")),
            )
        self._file.is_own, self._known = True, min(len(rows), len(history))
        self._replace(columns, rows, history)
        self._claim.left(self.path)

    def _replace(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, str]],
        history: Sequence[Mapping[str, str]],
    ) -> None:
        """Write the whole file at once: readers see the old one or the new one.

        Its rows are those of the history; what else ``rows`` of the file say stays, but
        for those that are of no epoch of it, as after a resume that failed.
        """
        nothing: Mapping[str, str] = {}
        pairs = zip_longest(rows[: self._known], history, fillvalue=nothing)
        self._file.replace(columns, [{**row, **cells} for row, cells in pairs])
        self._known = len(history)


def _tell_missing(file: LogFile, what: str, rows: tuple[int, int, int] | None) -> None:
    if rows is not None:
        first, last, number = rows
        logger.warning(
            "csv: %s could not always be written and lacks %s, %s",
            *(file.path, count(number, "row"), f"of the {what} from {first} to {last}"),
        )


def steps_path(path: Path) -> Path:
    """Return where rows of steps go beside a log: ``log.csv``, ``log.steps.csv``."""
    return path.with_name(f"{path.stem}.steps{path.suffix}")


def epoch_of(trainer: Trainer) -> int:
    """Return the epoch that the latest step is one of, from 1."""
    return max(1, trainer.epoch + (trainer.batches_seen > 0))


def mistake_of(path: Path, told: str) -> str:
    """Return why ``path`` can be no log, after ``told``; ``""`` if it can be one."""
    if path.is_dir():
        return f"{told} {str(path)!r}, which is a folder"
    is_device = path.is_char_device() or path.is_block_device()
    if is_device and not path.is_symlink():
        # Set aside, it would be gone for all programs.
        return f"{told} {str(path)!r}, which is a device; name a file"
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
