"""Write training curves for TensorBoard, at a cadence that costs no waiting."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from trainbus_logging.event_file import EventFile, import_writer
from trainbus_logging.hyperparameters import hyperparameters, main_settings
from trainbus_logging.run_folder import (
    RUN_NAME,
    folder_of,
    free_run_name,
    has_curves,
    moved_along,
)
from trainbus_logging.shown_rows import Row, ShownRows
from training import ConfigError, checked_options
from training.callbacks import Callback
from training.plugin import Plan, barrier, named_path, require_state

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import LazyLogs, PlannedRun, Readback

#: Values of a step -> their tags; others are below ``train/``.
STEP_TAGS = {"loss": "loss/train", "grad_norm": "grad_norm"}
#: Columns of a history row that are no metrics -> their tags; others have none.
EPOCH_TAGS = {"train_loss": "loss/train_epoch", "seconds": "time/epoch_seconds"}
#: The dashboard "Custom scalars": chart -> tags, as regular expressions.
LAYOUT = {
    "curves": {
        "loss": ["Multiline", ["^loss/"]],
        "metrics": ["Multiline", ["^metric/"]],
        "learning rate": ["Multiline", ["^lr/"]],
        "gradient norm": ["Multiline", ["^grad_norm$"]],
        "seconds a step": ["Multiline", ["^time/step_seconds$"]],
        "seconds an epoch": ["Multiline", ["^time/epoch_seconds$"]],
    }
}


class TensorBoardCallback(Callback):
    """Log curves, predictions and settings; x is ``trainer.step``.

    At the first step and every ``every_n_steps``: ``loss/train``, ``grad_norm``,
    ``lr/<group>`` for each parameter group by its name or number, and
    ``time/step_seconds``, the mean since the point before. At each evaluation:
    ``loss/val`` and ``metric/<name>``. At each epoch: ``loss/train_epoch`` and
    ``time/epoch_seconds``. "Custom scalars" shows the losses in one chart, and the
    metrics. A NaN or infinite value is no point but a line of text under ``notes``.

    At each evaluation that predicts rows, the same few are shown: ``rows/1`` and so on
    as pictures with what is asked, true and predicted, and all as the text ``rows``;
    at the end those of the lowest score in the last evaluation, as ``worst/1`` and so
    on. Settings are ``hparams``, and the texts ``run/settings`` and ``run/config``.

    A run writes to a folder below ``log_dir`` that is named like its ``save_dir``; if
    it holds curves already, to ``<name>-2`` and so on, so that both stay readable. A
    resumed run goes on in its own folder and hides the points after the step that it
    resumes from. After an event file that could not be written, as on a full disk, the
    curves go on in a new one once that can be; what came between is lost.

    Args:
        log_dir: folder for those of runs, relative to the working directory; None:
            ``tensorboard`` in the run's ``save_dir``.
        every_n_steps: steps between points of the curves of steps. Between them
            nothing is read from the device, and a point is written when its numbers
            have arrived: at a later step, or at the latest at the epoch's end.
        rows: how many rows are shown; 0 for none.
    Raises:
        ConfigError: a number is below its least.
    """

    name = "tensorboard"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.2,<2"
    before = ("mutates:optimizer",)  # rates are logged as used, before they advance

    @checked_options
    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        every_n_steps: Annotated[int, Ge(1)] = 50,
        rows: Annotated[int, Ge(0)] = 8,
    ) -> None:
        self._log_dir = log_dir
        self.every_n_steps = every_n_steps
        self.rows = rows
        #: The folder of this run's curves; final from what is first told on.
        self.log_dir = named_path(log_dir or "tensorboard")
        self._run_name = ""
        self._events: EventFile | None = None  # from what is first told to the end
        self._is_resumed: bool | None = None  # None: no run is on
        self._due: deque[tuple[str, Readback, int]] = deque()  # tag, value, step
        self._root = self.log_dir  # what `tensorboard --logdir` is to be given
        self._hyperparameters: dict[str, Any] | None = None  # to be written
        self._worst: list[Row] = []
        self._last_point = (0, 0.0)  # its step, and when it was

    def state_dict(self) -> dict[str, Any]:
        """Return which run it is of those that saved to its folder, as in ``run-2``."""
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
            self._require(run.save_dir)
        except ConfigError as error:
            missing = [str(error)]
        return Plan(files={self._place(run.save_dir): ""}, conflicts=missing)

    def on_setup(self, trainer: Trainer) -> None:
        """Fix the folder, and see that curves can be written there.

        Raises:
            ConfigError: they cannot.
            PluginError: TensorBoard is not installed.
        """
        self._require(trainer.save_dir)
        self.log_dir = self._root = self._place(trainer.save_dir).absolute()
        self._run_name = ""

    def on_train_begin(self, resumed: bool) -> None:
        """Touch nothing yet: another plugin may refuse the run."""
        self._worst = []
        self._is_resumed = resumed

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Begin to measure steps: what was between epochs is none of theirs."""
        self._open(trainer)
        self._last_point = trainer.step, time.perf_counter()

    def _open(self, trainer: Trainer) -> None:
        """Open the event file of a run that has none, and write down what is run.

        A resumed run may have no epoch left and an evaluation that is still asked for.
        """
        resumed = self._is_resumed
        if self._events is not None or resumed is None:
            return
        if not resumed:
            self._run_name = free_run_name(self._root, trainer.save_dir)
        self.log_dir = folder_of(self._root, trainer.save_dir, self._run_name)
        before = self._root / self._run_name  # as earlier releases had it
        if resumed and has_curves(before) and not has_curves(self.log_dir):
            self.log_dir = before
        if resumed and self._root.is_relative_to(trainer.save_dir.absolute()):
            self.log_dir = moved_along(self.log_dir, self._run_name)
        purge_step = trainer.step + 1 if resumed else None
        self._events = EventFile(self.log_dir, purge_step)
        self._put("add_custom_scalars", LAYOUT)
        self._hyperparameters = hyperparameters(trainer)
        self._write_text("run/settings", main_settings(trainer), trainer.step)
        if trainer.metadata:
            self._write_text("run/config", trainer.metadata, trainer.step)

    def on_step_end(self, trainer: Trainer, logs: LazyLogs) -> None:
        """Log the step, if it is due; write what has arrived of earlier ones."""
        step = trainer.step
        if step % self.every_n_steps == 0 or step == 1:
            for name in logs:
                if name != "lr":  # of the first group
                    tag = STEP_TAGS.get(name, f"train/{name}")
                    self._due.append((tag, logs.later(name), step))
            self._write_rates(trainer.optimizer.param_groups, step)
            self._write_step_seconds(step)
        self._write_due(wait=False)

    def on_predictions(self, trainer: Trainer, records: Sequence[Row]) -> None:
        """Show some rows with what was predicted, and note the worst."""
        self._open(trainer)
        if self.rows:
            shown = ShownRows(trainer.recipe)
            self._worst = shown.worst(records, self.rows)
            rows = shown.fixed(records, self.rows)
            self._show("rows", shown, rows, trainer.step)

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Log what an evaluation has measured."""
        self._open(trainer)
        tags = {name: tag_of(name) for name in metrics if name not in EPOCH_TAGS}
        if self._hyperparameters is not None and tags:
            self._write_hyperparameters(tags.values())
        for name, tag in tags.items():
            self._write(tag, metrics[name], trainer.step)

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Log the epoch and make all points visible."""
        self._write_due()
        for name, tag in EPOCH_TAGS.items():
            if name in metrics:
                self._write(tag, float(metrics[name]), trainer.step)
        self._put("flush")

    def on_train_end(self, trainer: Trainer) -> None:
        """Show the worst rows of the last evaluation."""
        if self._worst:
            self._show("worst", ShownRows(trainer.recipe), self._worst, trainer.step)

    def summary(self) -> dict[str, Any]:
        """Return where the event files are."""
        return {"paths": {"tensorboard": str(self._root)}}

    def on_close(self) -> None:
        """Write what is left, and close the event file."""
        self._write_due()
        if self._hyperparameters is not None:
            self._write_hyperparameters([])
        events, self._events, self._is_resumed = self._events, None, None
        if events is not None:
            events.close()

    def _place(self, save_dir: Path) -> Path:
        default = save_dir / "tensorboard"
        return named_path(default if self._log_dir is None else self._log_dir)

    def _require(self, save_dir: Path) -> None:
        import_writer()
        folder = self._place(save_dir)
        if found := barrier(folder):
            raise ConfigError(
                f"tensorboard.log_dir is {str(folder)!r}, but {str(found)!r} is no "
                "folder that can be written; choose another one"
            )

    def _write_due(self, wait: bool = True) -> None:
        """Write the points that are due, in order; without ``wait`` those here."""
        while self._due and (wait or self._due[0][1].is_here):
            tag, value, step = self._due.popleft()
            self._write(tag, value.value(), step)

    def _write_rates(self, groups: Sequence[Mapping[str, Any]], step: int) -> None:
        """Write the rate of each parameter group, by its name if it has one."""
        names = [str(group.get("name", index)) for index, group in enumerate(groups)]
        if len(set(names)) < len(names):
            names = [str(index) for index in range(len(groups))]
        for name, group in zip(names, groups, strict=True):
            self._write(f"lr/{name}", float(group["lr"]), step)

    def _write_step_seconds(self, step: int) -> None:
        """Write the mean of the steps since the last point, or the epoch's beginning.

        On CUDA that of a single step is what it takes to ask for it.
        """
        last, began = self._last_point
        now = time.perf_counter()
        if step > last:
            self._write("time/step_seconds", (now - began) / (step - last), step)
        self._last_point = step, now

    def _write_hyperparameters(self, tags: Iterable[str]) -> None:
        """Write the settings, once, as what ``tags`` are compared by."""
        settings, self._hyperparameters = self._hyperparameters, None
        from torch.utils.tensorboard import summary

        make: Any = summary.hparams
        # Not add_hparams(), which writes them to a further run beside this one.
        for each in make(settings, dict.fromkeys(tags, 0.0)):
            self._put("file_writer.add_summary", each)

    def _show(self, tag: str, shown: ShownRows, rows: Sequence[Row], step: int) -> None:
        """Write rows as text, and those with pictures as pictures."""
        self._put("add_text", tag, shown.table(rows), step)
        if self._events is None or self._events.is_lost:
            return
        for number, row in enumerate(rows, 1):
            try:
                cards = shown.cards(row)
            except Exception as error:  # as many kinds as there are decoders
                told = f"step {step}: {tag}/{number} is not shown: {error}"
                self._put("add_text", "notes", told, step)
                continue
            for card in cards:
                name = f"{tag}/{number}"
                self._put("add_image", name, card, step, dataformats="HWC")

    def _write(self, tag: str, value: float, step: int) -> None:
        if math.isfinite(value):
            self._put("add_scalar", tag, value, step)
        else:
            self._put("add_text", "notes", f"step {step}: {tag} is {value}", step)

    def _write_text(self, tag: str, values: Mapping[str, Any], step: int) -> None:
        text = json.dumps(values, indent=2, default=str, ensure_ascii=False)
        # Half a character, as a path that is not UTF-8 holds, is not written as it is.
        text = text.encode("utf-8", "backslashreplace").decode()
        self._put("add_text", tag, f"```json\n{text}\n```", step)

    def _put(self, method: str, *args: Any, **options: Any) -> None:
        if self._events is not None:
            self._events.put(method, *args, **options)


def tag_of(metric: str) -> str:
    """Return the tag of what an evaluation has measured."""
    loss, _, loader = metric.partition("/")
    if loss == "val_loss":
        return f"loss/val/{loader}" if loader else "loss/val"
    return f"metric/{metric}"
