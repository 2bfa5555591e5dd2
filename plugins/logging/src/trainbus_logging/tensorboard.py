"""Write training curves for TensorBoard, at a cadence that costs no waiting."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from training import ConfigError, PluginError, checked_options
from training.callbacks import Callback
from training.plugin import Plan, named_path, require_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from training import Trainer
    from training.plugin import LazyLogs, PlannedRun, Readback

logger = logging.getLogger(__name__)

#: Columns of a history row that are not metrics of an evaluation.
OWN_COLUMNS = ("train_loss", "seconds", "lr")
#: What ``free_run_name`` returns.
RUN_NAME = re.compile(r"(?:run-[0-9]+)?")


class TensorBoardCallback(Callback):
    """Log loss, learning rate, gradient norm and metrics; x is ``trainer.step``.

    Tags: ``train/loss``, ``train/lr`` (``train/lr_1`` and so on for further parameter
    groups) and ``train/grad_norm`` at the first step and every ``every_n_steps``;
    ``metrics/<name>`` at each evaluation; ``epoch/train_loss``, ``epoch/seconds`` and
    ``epoch/lr`` at each epoch; ``run/settings`` and ``run/config`` as text. A NaN or
    infinite value is not a point but a line of text under ``notes``.

    A fresh run in a folder that already holds curves writes to ``run-2`` (and so on)
    below it, so that both stay readable; a resumed run goes on in its own folder and
    hides the points after the step that it resumes from.

    Args:
        log_dir: folder for the event files, relative to the working directory; None:
            ``tensorboard`` in the run's ``save_dir``.
        every_n_steps: steps between points of the ``train/`` curves. Between them
            nothing is read from the device, and a point is written when its numbers
            have arrived: at a later step, or at the latest at the epoch's end.
    Raises:
        ConfigError: ``every_n_steps`` is below 1.
    """

    name = "tensorboard"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.1,<2"
    before = ("lr_scheduling",)  # rates are logged as used, before they advance

    @checked_options
    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every_n_steps: Annotated[int, Ge(1)] = 50,
    ) -> None:
        self._log_dir = log_dir
        self.every_n_steps = every_n_steps
        #: The folder of this run's curves; final from ``on_train_begin`` on.
        self.log_dir = named_path(log_dir or "tensorboard")
        self._run_name = ""
        self._writer: SummaryWriter | None = None
        self._due: deque[tuple[str, Readback, int]] = deque()  # tag, value, step

    def state_dict(self) -> dict[str, Any]:
        """Return the name of the run's folder below ``log_dir``."""
        return {"run_name": self._run_name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the folder that the run began in.

        Raises:
            CheckpointError: its name is none that ``free_run_name`` gives.
        """
        name = state.get("run_name", "")
        is_right = isinstance(name, str) and bool(RUN_NAME.fullmatch(name))
        wanted = "the name of a run, such as 'run-2'"
        require_state(self.name, is_right, "run_name", name, wanted)
        self._run_name = name

    def plan(self, run: PlannedRun) -> Plan:
        """Return what a run writes, or what it needs for that; touches nothing."""
        missing = []
        try:
            _import_writer()
        except PluginError as error:
            missing = [str(error)]
        return Plan(files={self._place(run.save_dir): ""}, conflicts=missing)

    def on_setup(self, trainer: Trainer) -> None:
        """Fix the folder, and see that TensorBoard can be imported.

        Raises:
            PluginError: it cannot.
        """
        _import_writer()
        self.log_dir = self._place(trainer.save_dir).absolute()
        self._run_name = ""

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Open the event file and write down what is run.

        Raises:
            ConfigError: the folder cannot be written.
        """
        if not resumed:
            self._run_name = free_run_name(self.log_dir)
        self.log_dir = self.log_dir / self._run_name
        purge_step = trainer.step + 1 if resumed else None
        try:
            self._writer = _import_writer()(str(self.log_dir), purge_step=purge_step)
        except OSError as error:
            raise ConfigError(
                f"tensorboard.log_dir is {str(self.log_dir)!r}, which cannot be "
                f"written: {error.strerror}"
            ) from error
        self._write_text("run/settings", settings_of(trainer), trainer.step)
        if trainer.metadata:
            self._write_text("run/config", trainer.metadata, trainer.step)

    def on_step_end(self, trainer: Trainer, logs: LazyLogs) -> None:
        """Log the step, if it is due; write what has arrived of earlier ones."""
        step = trainer.step
        if step % self.every_n_steps == 0 or step == 1:
            self._due.extend((f"train/{name}", logs.later(name), step) for name in logs)
            for index, group in enumerate(trainer.optimizer.param_groups[1:], 1):
                self._write(f"train/lr_{index}", float(group["lr"]), step)
        self._write_due(wait=False)

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Log what an evaluation has measured."""
        for name, value in metrics.items():
            if name not in OWN_COLUMNS:
                self._write(f"metrics/{name}", value, trainer.step)

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Log the epoch and make all points visible."""
        self._write_due()
        for name in OWN_COLUMNS:
            if name in metrics:
                self._write(f"epoch/{name}", float(metrics[name]), trainer.step)
        if self._writer is not None:
            self._writer.flush()

    def summary(self) -> dict[str, Any]:
        """Return where the event files are."""
        return {"paths": {"tensorboard": str(self.log_dir)}}

    def on_close(self) -> None:
        """Write what is left, and close the event file."""
        self._write_due()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _place(self, save_dir: Path) -> Path:
        default = save_dir / "tensorboard"
        return named_path(default if self._log_dir is None else self._log_dir)

    def _write_due(self, wait: bool = True) -> None:
        """Write the points that are due, in order; without ``wait`` those here."""
        while self._due and (wait or self._due[0][1].is_here):
            tag, value, step = self._due.popleft()
            self._write(tag, value.value(), step)

    def _write(self, tag: str, value: float, step: int) -> None:
        if self._writer is None:
            return
        if math.isfinite(value):
            self._writer.add_scalar(tag, value, step)
        else:
            self._writer.add_text("notes", f"step {step}: {tag} is {value}", step)

    def _write_text(self, tag: str, values: Mapping[str, Any], step: int) -> None:
        assert self._writer is not None
        text = json.dumps(values, indent=2, default=str)
        self._writer.add_text(tag, f"```json\n{text}\n```", step)


def free_run_name(log_dir: Path) -> str:
    """Return ``""`` if ``log_dir`` holds no curves, else the first free ``run-N``."""
    if not any(log_dir.glob("events.out.tfevents.*")):
        return ""
    number = 2
    while os.path.lexists(log_dir / f"run-{number}"):
        number += 1
    logger.info("%s holds curves already; this run is run-%d", log_dir, number)
    return f"run-{number}"


def settings_of(trainer: Trainer) -> dict[str, Any]:
    """Return the settings of a run that a reader of its curves asks for."""
    groups = trainer.optimizer.param_groups
    return {
        "model": type(trainer.model).__name__,
        "optimizer": type(trainer.optimizer).__name__,
        "lr": [float(group.get("initial_lr", group["lr"])) for group in groups],
        "weight_decay": [group.get("weight_decay") for group in groups],
        "num_epochs": trainer.num_epochs,
        "max_steps": trainer.max_steps,
        "steps_per_epoch": trainer.steps_per_epoch,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "max_grad_norm": trainer.max_grad_norm,
        "precision": trainer.precision,
        "device": str(trainer.device),
        "seed": trainer.seed,
    }


def _import_writer() -> type[SummaryWriter]:
    """Import late: it takes about a second."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PluginError(
            f"the plugin 'tensorboard' needs the package tensorboard ({error}); run: "
            "pip install tensorboard"
        ) from error
    return SummaryWriter
