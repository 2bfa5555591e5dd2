"""Leave a record of each run: its configuration, history, summary, and its starts.

The record of an earlier run in the same folder is never lost: it moves to
``earlier/001`` and so on when a new run begins there, or another one is resumed.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from training.builtin.answers import Answers, ask_plugins, best_rows, others_of
from training.builtin.earlier_record import put_aside, take_back
from training.bus.callback import Callback
from training.checkpoint.settings import validation_data
from training.discovery import installed
from training.discovery.provenance import describe_plugins
from training.discovery.shipped import VERSION
from training.errors import ConfigError
from training.files.claim import Claim
from training.files.durable import finite, write_durably, write_json
from training.files.leftovers import sweep_leftovers
from training.files.lock import FolderLostError
from training.files.named_paths import barrier, from_here, working_directory
from training.files.record_names import (
    CONFIG,
    HISTORY,
    LOCK,
    RECORD,
    STARTS,
    SUMMARY,
)
from training.files.write_throttle import WriteThrottle
from training.messages.error_texts import error_text, printable
from training.signals.handlers import Terminated

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Facts of the rows that summary.json has.
KEPT = ("rows", "beginning", "floors")


class RunRecord(Callback):
    """Write the run's record into ``trainer.save_dir``, each file all or nothing.

    Args:
        config: the resolved configuration, as a file would have it.
        facts: what ``data_facts`` returns.
    """

    name = "run_record"
    ranks = "main"
    after = tuple(sorted(installed.SHIPPED))  # its last words are about their results

    def __init__(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.config = dict(config)
        #: What stands over the configuration that is written. Not whole paths in it:
        #: a project is moved to another place with its runs, and found by these.
        self.head = (
            "# The resolved configuration of the run in this folder.\n"
            f"# Relative paths in it begin in {printable(working_directory())}\n"
        )
        self.facts = {key: facts[key] for key in KEPT if key in facts}
        #: A row by field, to try the model on; or None.
        self.example: dict[str, str] | None = facts.get("example")
        #: What summary.json holds; empty before the run has ended.
        self.summary: dict[str, Any] = {}
        #: Steps that were done when this start began.
        self.steps_before = 0
        self._started: tuple[float, float] | None = None
        #: Each time that the run was started or resumed, and how that ended.
        self._starts: list[dict[str, Any]] = []
        self._owes_config = False  # it goes ahead of the next file
        self._recorded: list[Any] | None = None  # the history as it stands in its file
        self._rows_before = 0  # those of the run when this start began
        self._throttle = WriteThrottle()  # all rows are written each time
        self._folder = Path()
        self._claim = Claim("run record", "training.save_dir")

    def on_setup(self, trainer: Checkpointable) -> None:
        """Fix the folder and lock it, before anything is written there.

        Raises:
            ConfigError: it cannot be written, or another run records itself there.
        """
        self._claim.require_free()
        self.summary, self._started, self._owes_config = {}, None, False
        self._recorded, self._throttle = None, WriteThrottle()
        self._folder = trainer.save_dir.absolute()
        if mistake := folder_mistake(trainer.save_dir):
            raise ConfigError(mistake)
        try:
            self._claim.take(self._folder / LOCK, trainer)
            sweep_leftovers(self._folder, RECORD)
        except OSError as error:
            raise ConfigError(
                f"training.save_dir is {str(trainer.save_dir)!r}, which cannot be "
                f"written to ({error.strerror}); choose another one"
            ) from error
        self._claim.left(self._folder / CONFIG)

    def on_train_begin(self, trainer: Checkpointable, resumed: bool) -> None:
        """Put the record of another run aside, and write what this run will do.

        Raises:
            ConfigError: a resumed run finds a folder in place of its record.
        """
        self._claim.confirm()
        take_back(self._folder)
        if resumed:
            _require_files(self._folder)
        rows = read_rows(self._folder / HISTORY) if resumed else []
        if not resumed or not are_of(trainer.history, rows):
            put_aside(self._folder)
        self._starts = read_rows(self._folder / STARTS) if resumed else []
        self._starts.append(start_of(trainer))
        if _is_measured_on_others(self._starts):
            self.facts.pop("floors", None)  # they are of the rows of this start only
        self._started = time.perf_counter(), _cpu_seconds()
        self.steps_before = trainer.step
        self._rows_before = len(trainer.history)
        self._owes_config = True
        with self._throttle.timed():
            self._write(STARTS, self._starts)

    def on_epoch_end(self, trainer: Checkpointable) -> None:
        """Write the history so far, unless that takes long beside the epochs since.

        What fails, or is not due, is made up for later: the trainer has all rows.

        Raises:
            FolderLostError: another run records itself there by now.
        """
        if self._throttle.is_due:
            self._try_history(trainer, "written at a later time")

    def on_train_end(self, trainer: Checkpointable) -> None:
        """Write the history, and the summary of a run that ended well."""
        self._write_history(trainer)
        try:
            answers = ask_plugins(trainer)
        except Exception:
            self._summarise(trainer, "finished", {})  # it has: the rest is recorded
            raise
        self._summarise(trainer, "finished", answers)

    def on_exception(self, trainer: Checkpointable, error: BaseException) -> None:
        """Write the history and the summary of a run that had begun and failed."""
        if self._started is not None and self._claim.is_of(trainer):
            try:
                answers = ask_plugins(trainer)
            except Exception as later:  # what failed first is to be recorded
                log.warning("the summary lacks what plugins say: %s", error_text(later))
                answers = {}
            by_signal = isinstance(error, KeyboardInterrupt | Terminated)
            status = "interrupted" if by_signal else f"failed: {error_text(error)}"
            try:
                # Else the file may have later rows, of an earlier start.
                if len(trainer.history) > self._rows_before:
                    self._try_history(trainer, "not written")
                self._summarise(trainer, status, answers)
            except FolderLostError as later:
                log.warning("the summary is not written: %s", error_text(later))

    def on_close(self, trainer: Checkpointable) -> None:
        """Let other runs record themselves there."""
        self._claim.release(trainer)

    def _try_history(self, trainer: Checkpointable, otherwise: str) -> None:
        try:
            self._write_history(trainer)
        except OSError as error:
            log.warning("the history is %s: %s", otherwise, error)

    def _write_history(self, trainer: Checkpointable) -> None:
        """Write what is not in the file yet: a disk is waited for."""
        with self._throttle.timed():
            history = finite(trainer.history)
            if history != self._recorded:
                self._write(HISTORY, history)
                self._recorded = history

    def _write(self, name: str, content: Any) -> None:
        self._claim.confirm()
        if self._owes_config:
            self._write_config()
        write_json(self._folder / name, content)

    def _write_config(self) -> None:
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        content = (self.head + text).encode()
        write_durably(self._folder / CONFIG, lambda file: file.write(content))
        self._claim.left(self._folder / CONFIG)
        self._owes_config = False

    def _summarise(
        self, trainer: Checkpointable, status: str, answers: Answers
    ) -> None:
        assert self._started is not None
        began, cpu_began = self._started
        self.summary = {
            "status": status,
            "stop_reason": trainer.stop_reason,
            "stop_owner": trainer.stop_owner,
            "epochs": trainer.epoch,
            "steps": trainer.step,
            "updates": trainer.update,
            "skipped_windows": trainer.state.progress.skipped_windows,
            "nonfinite_windows": trainer.state.progress.nonfinite_windows,
            "final": dict(trainer.history[-1]) if trainer.history else None,
            "best": best_rows(answers, trainer.history),
            "weights_are": trainer.weights_are,
            "seconds": round(time.perf_counter() - began, 3),
            "cpu_seconds": round(_cpu_seconds() - cpu_began, 3),
            "device": str(trainer.device),
            "device_name": _device_name(trainer.device),
            "precision": trainer.precision,
            "seed": trainer.seed,
            "data": self.facts,
            "plugins": _took_part(trainer),
            "paths": paths_of(answers, self._folder),
            "versions": {
                "trainbus": VERSION,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        }
        if others := others_of(answers):
            self.summary["results"] = others
        if trainer.bus.meter is not None:
            self.summary["costs"] = trainer.bus.meter.as_json()
        self._write(SUMMARY, self.summary)
        told = ("status", "stop_reason", "stop_owner", "epochs", "steps", "seconds")
        ended = {"time": _now(), **{key: self.summary[key] for key in told}}
        self._starts[-1]["ended"] = ended
        self._write(STARTS, self._starts)


def start_of(trainer: Checkpointable) -> dict[str, Any]:
    """Return when a run begins or goes on, from where; how it ends is not known yet."""
    source = trainer.resumed_from
    return {
        "time": _now(),
        "from": None if source is None else str(source),
        "validation": validation_data(trainer.val_dataloader),
        "epochs": trainer.epoch,
        "steps": trainer.step,
        "ended": None,
    }


def _took_part(trainer: Checkpointable) -> dict[str, dict[str, Any]]:
    """Describe each plugin, and say why it is off where it failed too often."""
    off = trainer.bus.off
    described = describe_plugins(
        {**trainer.plugins, **{name: plugin for name, (plugin, _) in off.items()}}
    )
    for name, (_, why) in off.items():
        described[name]["off"] = why
    return described


def _is_measured_on_others(starts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an earlier start had other validation rows than the last, if known."""
    known = [each.get("validation") for each in starts]
    return any(each not in (None, known[-1]) for each in known)


def are_of(
    history: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether recorded rows are those of a run with this history, as far as both go.

    Those of a run without any may be another run's.
    """
    if not history:
        return not rows
    pairs = zip(rows, finite(history), strict=False)
    return all(row == own for row, own in pairs)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the starts or epochs so far; none, with a warning, if unreadable."""
    if not path.exists():  # of a release that did not record them
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, list) and all(isinstance(each, dict) for each in found):
            return found
        told = "it is no list of rows"
    except (OSError, ValueError, RecursionError) as error:
        told = error_text(error)
    log.warning("%s is begun anew, since it cannot be read: %s", path, told)
    return []


def paths_of(answers: Answers, folder: Path) -> dict[str, str]:
    """Return where things are, relative to the working directory where below it."""
    paths = {
        "save_dir": folder,
        "config": folder / CONFIG,
        "history": folder / HISTORY,
        "summary": folder / SUMMARY,
    }
    for answer in answers.values():
        for label, path in answer.get("paths", {}).items():
            paths.setdefault(label, Path(path))
    return {label: from_here(path) for label, path in paths.items()}


def folder_mistake(save_dir: Path) -> str:
    """Return why no run can be recorded there, ``""`` if nothing is seen."""
    found = barrier(save_dir)
    if found is None:
        return ""
    return (
        f"training.save_dir is {str(save_dir)!r}, but {str(found)!r} is no folder that "
        "can be written; choose another one"
    )


def _require_files(folder: Path) -> None:
    for name in RECORD:
        if (folder / name).is_dir():
            raise ConfigError(
                f"{str(folder / name)!r} is a folder, but a run writes a file of that "
                "name; move it away"
            )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
