"""Append one JSON line for each event to a file, at once and whole."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from training import Callback, checked_options
from training.plugin import named_path

if TYPE_CHECKING:
    from training import Trainer


class EventStreamCallback(Callback):
    """Tell the world what a run is doing, one JSON object a line.

    Every line has ``event``, ``seq`` (counts lines since the last ``train_begin``),
    ``time`` (seconds since 1970), ``step`` and ``epoch``. Each is appended by a single
    write to a file in append mode, so a reader never sees half a line of it and several
    runs may share a file. A resumed run appends; steps that it does again are told
    again. NaN and infinite values are strings: ``"nan"``, ``"inf"``.

    Args:
        path: file to append to, relative to the working directory; None:
            ``events.jsonl`` in the run's ``save_dir``. A named pipe works, too.
        every_n_steps: steps between ``step`` events; each reads the loss from the
            device.
    Raises:
        ConfigError: ``every_n_steps`` is below 1.
    """

    name = "event_stream"
    hook_api = ">=1.0,<2"
    failure = "isolate"  # nobody loses a run because nobody listens
    ranks = "main"

    @checked_options
    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        every_n_steps: Annotated[int, Ge(1)] = 50,
    ) -> None:
        self._given = path
        self.every_n_steps = every_n_steps
        #: Where the lines go; final from ``on_setup`` on.
        self.path = named_path(path or "events.jsonl")
        self._file: int | None = None
        self._seq = 0

    def on_setup(self, trainer: Trainer) -> None:
        """Fix the file, before anything is written."""
        self._close()
        default = trainer.save_dir / "events.jsonl"
        given = default if self._given is None else self._given
        self.path = named_path(given).absolute()
        self._seq = 0

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Open the file and say that the run begins."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._file = os.open(self.path, flags, 0o644)
        self._write(
            trainer,
            "train_begin",
            resumed=resumed,
            num_epochs=trainer.num_epochs,
            total_steps=trainer.total_steps,
            plugins=list(trainer.plugins),
        )

    def on_step_end(
        self, trainer: Trainer, logs: Mapping[str, float], applied: bool
    ) -> None:
        """Report a step, if it is due."""
        if trainer.step % self.every_n_steps == 0:
            values = dict(logs)  # waits for the device
            self._write(trainer, "step", applied=applied, **values)

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Report an evaluation."""
        self._write(trainer, "metrics", metrics=dict(metrics))

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Report an epoch."""
        self._write(trainer, "epoch_end", row=dict(metrics))

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        """Report a boundary at which checkpoints are written."""
        self._write(trainer, "checkpoint", reason=reason)

    def on_train_end(self, trainer: Trainer) -> None:
        """Report a good end."""
        self._write(trainer, "train_end", reason=trainer.stop_reason)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Report a bad end."""
        self._write(trainer, "exception", error=f"{type(error).__name__}: {error}")

    def on_close(self, trainer: Trainer) -> None:
        """Say that no more lines follow."""
        self._write(trainer, "close")
        self._close()

    def _write(self, trainer: Trainer, event: str, **values: Any) -> None:
        if self._file is None:
            return
        line = {
            "event": event,
            "seq": self._seq,
            "time": round(time.time(), 3),
            "step": trainer.step,
            "epoch": trainer.epoch,
            **values,
        }
        self._seq += 1
        text = json.dumps(_finite(line), allow_nan=False) + "\n"
        with open(self._file, "ab", closefd=False) as file:  # all of it, or an error
            file.write(text.encode())

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as strings; JSON knows neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
