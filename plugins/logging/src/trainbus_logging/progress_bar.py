"""Show how far a run is, at what rate, and when it will be done."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from trainbus_logging.display import Bar, Lines, epoch_line
from training import checked_options
from training.callbacks import Callback
from training.plugin import guarded

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import LazyLogs, Readback

#: Seconds between refreshes of the bar; each copies one loss from the device.
BAR_SECONDS = 0.2
#: Seconds between lines where there is no bar, by ``verbose``.
LINE_SECONDS = {1: 10.0, 2: 2.0}
SMOOTHING = 0.3  # share of the newest loss in the smoothed one


class ProgressBarCallback(Callback):
    """Show progress on standard error.

    At a terminal a tqdm bar for each epoch shows batches, rate, time left in the epoch,
    smoothed loss and time left in the run; elsewhere, and with ``verbose=2``, plain
    lines do. Each epoch leaves one line with its metrics.

    Args:
        verbose: 0: silent; 1: a bar, or a line every 10 seconds where there is no
            terminal; 2: a line every 2 seconds.
    Raises:
        ConfigError: ``verbose`` is none of these.
    """

    name = "progress"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.0,<2"
    #: Where to write, by ``write`` alone; None: what ``sys.stderr`` is when the run
    #: starts. One that breaks does not end the run.
    stream: Any = None
    #: Seconds from any origin.
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    @checked_options
    def __init__(self, verbose: Annotated[int, Ge(0), Le(2)] = 1) -> None:
        self.verbose = verbose
        self._view: Bar | Lines | None = None
        self._interval = BAR_SECONDS
        self._next_look: float = math.inf  # index of the batch to look at the clock
        self._loss_due: Readback | None = None  # on its way from the device

    def on_train_begin(self, trainer: Trainer) -> None:
        """Choose bar or lines, and start the clock of the run."""
        self._close()
        self._next_look = math.inf
        stream = sys.stderr if self.stream is None else self.stream
        if self.verbose == 0 or stream is None:  # a process may have no sys.stderr
            return
        stream = guarded(stream)
        if self.verbose == 1 and stream.isatty():
            self._view, self._interval = Bar(stream), BAR_SECONDS
        else:
            self._view, self._interval = Lines(stream), LINE_SECONDS[self.verbose]
        self._started, self._first_step = self.clock(), trainer.step
        self._loss = math.nan

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Show a new bar, which starts where the epoch is resumed."""
        if self._view is None:
            return
        done, self._num_batches = trainer.batches_seen, trainer.batches_per_epoch
        title = f"epoch {trainer.epoch + 1}/{trainer.num_epochs}"
        self._view.start(title, done, self._num_batches)
        self._epoch_started = self._last_shown = self.clock()
        self._first_batch = self._last_look = done
        self._next_look = done
        self._loss_due = None

    def on_batch_end(self, trainer: Trainer, batch: int, logs: LazyLogs) -> None:
        """Refresh the display, if it is time; almost always do nothing.

        The device is never waited for: its loss is shown when it has arrived.
        """
        if batch < self._next_look:
            return
        now = self.clock()
        done = batch + 1
        elapsed = now - self._epoch_started
        # Look again after as many batches as fit between refreshes, by the rate so
        # far; at most twice as many as have been done, in case they get slower.
        rate = (done - self._first_batch) / elapsed if elapsed > 0 else math.inf
        ahead = min(rate * self._interval / 4, done - self._first_batch)
        self._next_look = batch + max(1, int(ahead))
        if self._loss_due is None:
            is_due = now - self._last_shown >= self._interval
            if is_due or (done == self._num_batches and isinstance(self._view, Bar)):
                self._last_shown = now
                self._loss_due = logs.later("loss")
        if self._loss_due is not None and self._loss_due.is_here:
            self._show(trainer, done, rate, self._loss_due.value())
            self._loss_due = None
        elif self._loss_due is not None:
            self._next_look = batch + 1

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Replace the bar by a line with the epoch's metrics."""
        self._next_look = math.inf
        if self._view is not None:
            left = self._seconds_left(trainer, 0.0)
            self._view.finish(epoch_line(metrics, trainer.num_epochs, left))

    def on_close(self) -> None:
        """Leave the terminal as it was, also after an error."""
        self._close()

    def _show(self, trainer: Trainer, done: int, rate: float, loss: float) -> None:
        if math.isfinite(loss) and math.isfinite(self._loss):
            loss = self._loss + SMOOTHING * (loss - self._loss)
        self._loss = loss
        assert self._view is not None
        windows = (done - trainer.batches_seen) / trainer.gradient_accumulation_steps
        left = self._seconds_left(trainer, windows)
        self._view.show(done, self._num_batches, rate, loss, left)

    def _seconds_left(self, trainer: Trainer, windows: float) -> float | None:
        """Return the seconds to the run's planned end at the pace so far, if known."""
        total, step = trainer.total_steps, trainer.step + windows
        done = step - self._first_step
        if total is None or done <= 0:
            return None
        return (self.clock() - self._started) / done * max(0.0, total - step)

    def _close(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.close()
