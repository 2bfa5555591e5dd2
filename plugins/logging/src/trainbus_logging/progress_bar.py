"""Show how far a run is, at what rate, and when it will be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from trainbus_logging.display import Bar, Lines, Position, Stretch, view_of
from trainbus_logging.epoch_table import Outcome
from trainbus_logging.standing import Standing, watched
from training import checked_options
from training.callbacks import Callback
from training.plugin import heard_if

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

    At a terminal, and in a notebook, a tqdm bar for each epoch shows batches, rate,
    time left in the epoch, smoothed loss and time left in the run, and another one how
    far an evaluation is; elsewhere, and with ``verbose=2``, plain lines do. Each epoch
    leaves one line with its metrics, as many as fit a terminal: ``*`` marks a new best
    of a metric that a plugin watches, ``saved`` a checkpoint that was written.

    Args:
        verbose: 0: silent; 1: a bar, or a line every 10 seconds where there is no
            terminal; 2: a line every 2 seconds.
        columns: metrics that an epoch's line shows first. None: those that plugins
            watch. All others follow, as far as there is room.
    Raises:
        ConfigError: ``verbose`` is none of these.
    """

    name = "progress"
    failure = "isolate"  # a run is worth more than its log
    ranks = "main"
    hook_api = ">=1.2,<2"
    before = ("evaluation",)  # who tries out its evaluator before the run
    #: Where to write, by ``write`` alone; None: what ``sys.stderr`` is when the run
    #: starts. One that breaks does not end the run.
    stream: Any = None
    #: Seconds from any origin.
    clock: Callable[[], float] = staticmethod(time.perf_counter)

    @checked_options
    def __init__(
        self,
        verbose: Annotated[int, Ge(0), Le(2)] = 1,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.verbose = verbose
        self.columns = columns
        self._view: Bar | Lines | None = None
        self._interval = BAR_SECONDS
        self._next_look: float = math.inf  # index of the batch to look at the clock
        self._loss_due: Readback | None = None  # on its way from the device
        self._evaluating_since: float | None = None
        self._ended: Outcome | None = None  # of an epoch whose line is still to come
        self._standing = Standing()

    def on_setup(self, trainer: Trainer) -> None:
        """Choose bar or lines; say at once that something is going on."""
        self._close()
        self._next_look = math.inf
        self._ended = self._evaluating_since = None
        self._standing = replace(self._standing, is_told=False)
        chosen = watched(trainer) if self.columns is None else self.columns
        self._view = view_of(self.stream, self.verbose, chosen)
        if self._view is not None:
            has_bar = isinstance(self._view, Bar)
            self._interval = BAR_SECONDS if has_bar else LINE_SECONDS[self.verbose]
            self._view.wait("preparing")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock of the run."""
        self._started, self._first_step = self.clock(), trainer.step
        self._loss = math.nan

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Show a new bar, which starts where the epoch is resumed."""
        if self._view is None:
            return
        self._show_row(trainer)
        title = f"epoch {trainer.epoch + 1}/{trainer.num_epochs}"
        done, total = trainer.batches_seen, trainer.batches_per_epoch
        self._epoch = Stretch(title, done, total, self.clock())
        self._view.start(self._epoch)
        if done:
            self._view.note(f"{title}  resumed at batch {done}/{total or '?'}")
        self._last_shown, self._next_look = self._epoch.began, done
        self._loss_due = None

    @heard_if(lambda self: self.verbose)
    def on_batch_end(self, trainer: Trainer, batch: int, logs: LazyLogs) -> None:
        """Refresh the display, if it is time; almost always do nothing.

        The device is never waited for: its loss is shown when it has arrived.
        """
        if batch < self._next_look:
            return
        self._leave_evaluation()
        now = self.clock()
        done = batch + 1
        # Look again after as many batches as fit between refreshes, by the rate so
        # far; at most twice as many as have been done, in case they get slower.
        rate = self._epoch.rate(done, now)
        ahead = min(rate * self._interval / 4, done - self._epoch.first)
        self._next_look = batch + max(1, int(ahead))
        if self._loss_due is None:
            is_due = now - self._last_shown >= self._interval
            if is_due or (done == self._epoch.total and isinstance(self._view, Bar)):
                self._last_shown = now
                self._loss_due = logs.later("loss")
        if self._loss_due is not None and self._loss_due.is_here:
            self._show(trainer, done, rate, self._loss_due.value())
            self._loss_due = None
        elif self._loss_due is not None:
            self._next_look = batch + 1

    def evaluation_progress(
        self, trainer: Trainer, done: int, total: int | None, loader: str
    ) -> None:
        """Show how far an evaluation is."""
        if self._view is None:
            return
        now = self.clock()
        if done == 0:
            if self._evaluating_since is None:
                self._evaluating_since = now
            self._loader = Stretch(f"evaluating {loader}".rstrip(), 0, total, now)
            self._last_shown = now
            self._view.start(self._loader)
            self._next_look = 0  # the epoch, if it goes on, has its bar back at once
            return
        is_due = now - self._last_shown >= self._interval
        if isinstance(self._view, Bar) if done == total else is_due:
            self._last_shown = now
            rate = self._loader.rate(done, now)
            self._view.show(Position(self._loader, done, rate))

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Keep the row, until it is known whether it is saved."""
        self._next_look, self._evaluating_since = math.inf, None
        if self._view is not None:
            left = self._seconds_left(trainer, 0.0)
            self._ended = Outcome(metrics, trainer.num_epochs, left)
            self._view.wait(self._epoch.title)

    def on_train_end(self, trainer: Trainer) -> None:
        """Show the last epoch's line."""
        self._show_row(trainer)

    def on_close(self, trainer: Trainer) -> None:
        """Leave the terminal as it was, also after an error."""
        self._show_row(trainer)
        self._close()

    def _show_row(self, trainer: Trainer) -> None:
        """Show the line of the epoch that ended last, unless it is there."""
        before, self._standing = self._standing, self._standing.now(trainer)
        ended, self._ended = self._ended, None
        if ended is None or self._view is None:
            return
        best = self._standing.beats(before, ended.row)
        is_saved = bool(self._standing.files - before.files)
        self._view.finish(replace(ended, best=best, is_saved=is_saved))

    def _leave_evaluation(self) -> None:
        """Go back to the epoch's bar after an evaluation inside of the epoch."""
        since, self._evaluating_since = self._evaluating_since, None
        if since is None or self._view is None:
            return
        self._epoch.began += self.clock() - since  # batches did not get slower
        self._view.start(self._epoch)

    def _show(self, trainer: Trainer, done: int, rate: float, loss: float) -> None:
        if math.isfinite(loss) and math.isfinite(self._loss):
            loss = self._loss + SMOOTHING * (loss - self._loss)
        self._loss = loss
        assert self._view is not None
        windows = (done - trainer.batches_seen) / trainer.gradient_accumulation_steps
        left = self._seconds_left(trainer, windows)
        self._view.show(Position(self._epoch, done, rate, loss, left))

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
