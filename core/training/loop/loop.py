"""The loop: epochs, windows and batches, and the events between them.

It owns order and counters and no policy: plugins decide when to stop, save, log or
evaluate. ``hookspecs`` says when each hook fires.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from training.checkpoint.catch_up import catch_up
from training.errors import DataError, NonFiniteError
from training.feed.batches import device_batches
from training.feed.epoch_loader import EpochLoader
from training.logs import LazyLogs
from training.loop.metrics import MetricValue, merge_metrics
from training.loop.rng import load_rng_state, rng_state
from training.loop.window import APPLIED, NONFINITE, Window, refusal
from training.signals.signals import Abandoned
from training.view import RunView
from training.weighing.usual_batch import weighing

log = logging.getLogger(__name__)

#: Attempts that the host may be ahead of the device.
MOST_UNSETTLED = 16


class Loop(RunView):
    """Runs what ``Trainer`` has set up, from the counters' position to the end."""

    _order: EpochLoader
    _window: Window

    @property
    def loader_state(self) -> Any:
        """The loader's own state at this boundary, for one that keeps any."""
        if self.owed:
            return self.owed["loader"]
        order = getattr(self, "_order", None)
        return order and order.loader_state(self.progress.batch)

    @property
    def data_state(self) -> list[Tensor]:
        """States of the user's generators that the next batch needs at this boundary.

        Its epoch draws its order once, so inside of it they are those it began with.
        """
        if self.owed:
            return list(self.owed["data"])
        if self.epoch_state is not None:
            return self.epoch_state
        order = getattr(self, "_order", None)
        return [] if order is None else order.generator_states()

    def _run_epochs(self, resume: dict[str, Any] | None) -> None:
        """Run until the plan is done or a request ends it.

        Args:
            resume: the state to go on from; its random generators are restored when
                the first iterator stands.
        """
        if resume is not None and self.is_stopping:
            catch_up(self, resume, self.switches_before)
            load_rng_state(resume["rng"], self.device)
        while not self.is_stopping:
            self._run_epoch(resume)
            resume = None
        if self._asked and self._signal is None:
            try:
                self._grant()  # what was asked for at the last boundary
                self._save_if_asked()
            except Abandoned:
                self._announce_checkpoint("stop")

    def _run_epoch(self, resume: dict[str, Any] | None) -> None:
        """Run the epoch, or its remainder; stop inside it only at a boundary."""
        started = time.perf_counter()
        skip = self.progress.batch
        if resume is not None and not skip:
            catch_up(self, resume, self.switches_before)
        if self.bus.on_epoch_begin is not None:
            self.bus.on_epoch_begin(self)
        if resume is not None and skip:  # the saved epoch had begun
            catch_up(self, resume, self.switches_before)
        self.modes.train()
        batches = self._order.start(
            self.epoch,
            skip,
            self.owed.get("data"),
            self.owed.get("loader"),
        )
        self.epoch_state = self._order.epoch_state
        self.owed = {}
        if resume is not None:  # after the iterator was made: making it draws numbers
            load_rng_state(resume["rng"], self.device)
        try:
            complete = self._run_batches(
                device_batches(
                    batches, self.device, weighing(self._weigher, self._order)
                )
            )
            if complete and self.progress.batch == 0:
                raise DataError("train_dataloader yielded no batch; give it some data")
            if complete or self._stop is None:
                self._end_epoch(complete, time.perf_counter() - started)
                return
        except Abandoned:
            pass  # an evaluation; the state is the one from before it
        self._asked.pop("checkpoint", None)  # this is it
        self._announce_checkpoint("stop")

    def _run_batches(self, batches: Iterator[tuple[Any, float]]) -> bool:
        """Train on ``batches``; return False if the run ended before the last one."""
        bus, window = self.bus, self._window
        accumulation, length = self.gradient_accumulation_steps, self.batches_per_epoch
        index = self.progress.batch
        if self.is_stopping:
            return False
        for inputs, weight in batches:
            if self._asked and not window.num_batches:  # no, the epoch goes on
                self._grant()
                if self._stop is not None:
                    return False
            self.is_in_window = True
            if bus.on_batch_begin is not None:
                bus.on_batch_begin(self, index, inputs)
            loss = window.backward(inputs, weight)
            if bus.on_batch_end is not None:
                logs = {"loss": loss.detach(), **window.parts}
                bus.on_batch_end(self, index, LazyLogs(logs))
            index += 1
            if window.num_batches == accumulation:
                self._end_window(window, index)
                if self._signal is not None:
                    return False  # its grace is short; what is asked for is saved, too
                if index == length:
                    continue  # what was asked for is granted at the epoch's end
                ended = self._stop is not None or self.step == self.max_steps
                # Without a length only the next batch tells whether the epoch is over.
                if self._asked and (self._stop or (length is not None and not ended)):
                    self._grant()
                if ended or self._stop is not None:
                    return False
        if window.num_batches:  # the last window is stepped with its own weight
            self._end_window(window, index)
        return True

    def _end_window(self, window: Window, index: int) -> None:
        """Step the optimizer, count, announce, and grant what was asked for."""
        bus, progress = self.bus, self.progress
        lr = float(self.optimizer.param_groups[0]["lr"])  # before it moves
        progress.lr = lr
        before_step = bus.on_before_step
        result = window.step(before_step and (lambda: before_step(self)))
        self.is_in_window = False
        progress.step += 1
        progress.batch = index
        if result.verdict is None:
            self._count(bool(result.applied))
        else:
            self._unsettled.append((progress.step, result.verdict))
            self.settle(wait=False)
        if result.nonfinite:
            progress.nonfinite_windows += 1
            log.warning("step %d dropped: loss or gradient not finite", self.step)
        else:
            progress.loss_sum = progress.loss_sum + result.loss_sum
            progress.weight_sum += result.weight
        if bus.on_step_end is not None:
            logs = {"loss": result.loss, **result.parts, "lr": lr}
            if result.grad_norm is not None:
                logs["grad_norm"] = result.grad_norm
            bus.on_step_end(self, LazyLogs(logs), result.applied)

    def settle(self, wait: bool = True) -> None:
        """Count the attempts whose outcome only the device knew when they were made.

        Args:
            wait: for all of them; False: take those that have arrived.
        Raises:
            NonFiniteError: one met a value that is not finite. It and all that came
                after it left the weights alone; the counters go back to before it.
        """
        while self._unsettled:
            step, verdict = self._unsettled[0]
            is_late = len(self._unsettled) > MOST_UNSETTLED
            if not (wait or verdict.is_here or is_late):
                return
            outcome = verdict.value()
            if outcome == NONFINITE:
                self.progress.step = step - 1
                self._unsettled.clear()
                raise NonFiniteError(refusal("a loss or gradient is NaN or infinite"))
            self._unsettled.popleft()
            self._count(outcome == APPLIED)

    def _count(self, applied: bool) -> None:
        if applied:
            self.progress.update += 1
        else:
            self.progress.skipped_windows += 1

    def _grant(self) -> None:
        """Evaluate and save where that was asked for; what is asked meanwhile waits."""
        self.settle()
        evaluation = self._asked.pop("evaluation", None)
        if evaluation is not None:
            try:
                self._evaluate(evaluation)
            except Abandoned:
                self._asked["evaluation"] = evaluation
                raise
        if not self.is_stopping:  # else with the one that ends the run
            self._save_if_asked()

    def _save_if_asked(self) -> None:
        checkpoint = self._asked.pop("checkpoint", None)
        if checkpoint is not None:
            self._announce_checkpoint(checkpoint)

    def _end_epoch(self, complete: bool, seconds: float) -> None:
        """Evaluate, decide, report and save, in this order."""
        self.settle()
        progress = self.progress
        weight = progress.weight_sum
        train_loss = float(progress.loss_sum) / weight if weight else float("nan")
        number, before = progress.epoch + 1, replace(progress)
        if complete:
            progress.epoch, progress.batch = number, 0
            progress.loss_sum = progress.weight_sum = 0.0
            self.epoch_state = None
        asked = self._asked.pop("evaluation", None)
        reason = "epoch_end" if complete else "max_steps"
        if asked is not None:
            reason = f"{reason}; {asked}"
        try:
            metrics = self._evaluate(reason, {"train_loss": train_loss})
        except Abandoned:
            self.progress, self.epoch_state = before, self._order.epoch_state
            if asked is not None:
                self._asked["evaluation"] = asked
            raise
        row = {
            "epoch": number,
            "step": self.step,
            "update": self.update,
            "lr": progress.lr,
            **metrics,
            "seconds": seconds,
        }
        self._history.append(row)
        if self.bus.on_epoch_end is not None:
            self.bus.on_epoch_end(self, MappingProxyType(row))
        self._announce_checkpoint("epoch_end" if complete else "stop")
        self._save_if_asked()

    def _evaluate(
        self, reason: str, own: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Collect metrics, record them with their origin, and let deciders decide."""
        results: list[tuple[str, Any]] = [("trainer", own)]
        drawn, self._is_evaluating = rng_state(self.device), True
        self._row_is_due = own is not None
        try:
            with self.modes.evaluation():
                results += self.bus.collect("evaluate", trainer=self, reason=reason)
        except Abandoned:
            load_rng_state(drawn, self.device)
            raise
        finally:
            self._is_evaluating = False
        merged = merge_metrics(results)
        for name, (value, producer) in merged.items():
            self.metrics.record(
                name, MetricValue(value, self.step, self.epoch, producer)
            )
        if own is not None and self._all_delivered(results):
            self.metrics.check_delivered(merged.keys())
        metrics = {name: value for name, (value, _) in merged.items()}
        if metrics and self.bus.on_metrics is not None:
            self.bus.on_metrics(self, MappingProxyType(metrics))
        return metrics

    def _all_delivered(self, results: list[tuple[str, Any]]) -> bool:
        """Whether each producer took its turn; one that failed in isolation did not."""
        everybody = 1 + len(self.bus.listeners("evaluate"))  # and the trainer itself
        return len([r for _, r in results if r is not None]) == everybody

    def _announce_checkpoint(self, reason: str) -> None:
        if self.bus.on_checkpoint is not None:
            self.bus.on_checkpoint(self, reason)
