"""The loop: epochs, windows and batches, and the events between them.

It owns order and counters and no policy: plugins decide when to stop, save, log or
evaluate. ``hookspecs`` says when each hook fires. Its parts are handed in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from training.hardware.rng import rng_state
from training.logs import LazyLogs
from training.loop.requests import Abandoned
from training.loop.window_result import add_part_sums
from training.messages.no_batch import no_batch

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.feed.batches import Arrived
    from training.feed.feed import Feed
    from training.hardware.draws import Draws
    from training.loop.run_state import RunState
    from training.loop.window import Window
    from training.modules.train_mode import Modes
    from training.view import TrainerView

log = logging.getLogger(__name__)


class Loop:
    """Runs what ``Run`` has set up, from the counters' position to the end.

    Args:
        trainer: what events are announced with; it holds the plan.
        state: counters, history, metrics and requests.
        feed: batches, epoch by epoch.
        window: makes the attempts.
        modes: which modules train and which rest.
        draws: the random generators, and what is drawn that a run shall not go by.
        catch_up: puts back, the first time, what hooks of a loaded run had changed.
    Attributes:
        is_in_window: whether batches were seen since the last boundary.
        is_evaluating: whether metrics are being measured.
        row_is_due: whether an epoch has been evaluated whose row is still to come.
        is_extra: what ``trainer.is_extra_evaluation`` is; ``TrainerView`` explains it.
        failed_batch: of the epoch, if computing it raised; else None.
        reached: batches of the epoch that are in a window that was ended.
    """

    def __init__(
        self,
        trainer: TrainerView,
        state: RunState,
        feed: Feed,
        window: Window,
        modes: Modes,
        draws: Draws,
        catch_up: Callable[[], None],
    ) -> None:
        self.trainer, self.state = trainer, state
        self.feed, self.window = feed, window
        self.bus: Bus = trainer.bus
        self.modes, self.draws = modes, draws
        self._catch_up, self._end_is_announced = catch_up, True
        self.failed_batch: int | None = None
        self.reached = 0
        self.is_in_window = self.is_evaluating = self.row_is_due = self.is_extra = False

    def run(self) -> None:
        """Run until the plan is done or a request ends it."""
        trainer, requests = self.trainer, self.state.requests
        requests.agree()
        if self.state.has_pending_row(trainer.max_steps):
            self._run_epoch()
        elif trainer.is_stopping:  # it trains nothing: what it saves is what was loaded
            self._catch_up()
            self.draws.restore(self.state.to_restore)
        while not trainer.is_stopping:
            self._run_epoch()
        if not self._end_is_announced:  # the stop came while the last one was heard
            self._announce_checkpoint("stop")
        if requests.asked and not (requests.signal or requests.failure):
            try:
                self._serve_requests()  # what was asked for at the last boundary
                self._save_if_asked()
            except Abandoned:
                self._announce_checkpoint("stop")

    def _run_epoch(self) -> None:
        """Run the epoch, or its remainder; stop inside it only at a boundary."""
        started, progress = time.perf_counter(), self.state.progress
        to_restore, skip = self.state.to_restore, progress.batch
        # Between epochs before the event, so that a hook may change it for this one.
        if not skip:
            self._catch_up()
            self.draws.restore(to_restore)
            self.draws.keep(progress.place)  # who goes on from here hears it, too
        if self.bus.on_epoch_begin is not None:
            self.bus.on_epoch_begin(self.trainer)
        self._catch_up()  # the saved epoch had begun
        self.modes.train()
        if to_restore and not skip:  # a hook may have drawn, as it would have
            to_restore["rng"] = rng_state(self.trainer.device)
        batches = self.feed.start(progress.epoch, skip, to_restore)
        self.draws.restore(to_restore)  # now that an iterator stands: making one draws
        to_restore.clear()
        self.state.requests.agree()
        try:
            complete = self._run_batches(batches)
            if complete and progress.batch == 0:
                raise no_batch(progress.epoch)
            # Neither complete nor ended by a request: max_steps, which gets its row.
            if complete or self.state.requests.stop is None:
                self._end_epoch(complete, time.perf_counter() - started)
                return
        except Abandoned:
            pass  # an evaluation; the state is the one from before it
        self.state.requests.take("checkpoint")  # this is it
        self._announce_checkpoint("stop")

    def _run_batches(self, batches: Iterator[Arrived]) -> bool:
        """Train on ``batches``; return False if the run ended before the last one."""
        # Locals: looked up once an epoch, not once a batch.
        trainer, bus, window = self.trainer, self.bus, self.window
        requests, progress = self.state.requests, self.state.progress
        accumulation, index = trainer.gradient_accumulation_steps, progress.batch
        weigher, length = self.state.weigher, trainer.batches_per_epoch
        if trainer.is_stopping:  # after the last batch it may owe the epoch's end
            return index == length and requests.stop is None
        for inputs, host, origin in batches:
            if index == length and self.trainer.is_stopping:
                return False  # it had said that there are no more
            # The epoch goes on. Once a boundary: what is asked meanwhile waits.
            if requests.asked and not (window.num_batches or progress.served):
                self._serve_requests()
                if requests.stop is not None:
                    return False
            if not trainer.model.training:
                self.modes.hold()
            # Now, never before: it may measure, with the weights of this moment.
            try:
                weight = weigher.weigh(host, origin)
                self.is_in_window = True
                if bus.on_batch_begin is not None:
                    bus.on_batch_begin(trainer, index, inputs)
                loss = window.backward(inputs, weight)
            except Exception:
                self.failed_batch = index
                raise
            if bus.on_batch_end is not None:
                # Detached: who keeps a log must not keep the graph of its step.
                logs = {"loss": loss.detach(), **window.parts}
                bus.on_batch_end(trainer, index, LazyLogs(logs))
            del inputs, host, loss  # else held while another one is read and computed
            index += 1
            if window.num_batches == accumulation:
                # Without a length each may be the last one.
                self._end_window(index, is_last=index == length or length is None)
                if requests.signal is not None:
                    return False  # its grace is short; what is asked for is saved, too
                if index == length:
                    continue  # what was asked for is granted at the epoch's end
                is_over = progress.step >= (trainer.max_steps or inf)
                # Without a length only the next batch tells whether the epoch is over.
                if requests.asked and (requests.stop or (length and not is_over)):
                    self._serve_requests()
                if is_over or requests.stop is not None:
                    return False
        if window.num_batches:  # the last window is stepped with its own weight
            self._end_window(index, is_last=True)
        return True

    def _end_window(self, index: int, is_last: bool) -> None:
        """Step, count and announce; ``index`` is that of the batch to come."""
        trainer, bus, progress = self.trainer, self.bus, self.state.progress
        before_step, self.reached = bus.on_before_step, index
        # None where nobody listens: the window then need not look before it clips.
        result = self.window.step(before_step and (lambda: before_step(trainer)))
        self.is_in_window = progress.served = False
        lr = float(trainer.optimizer.param_groups[0]["lr"])  # as a listener has left it
        if result.verdict is None:
            progress.count(bool(result.applied))
        else:  # it may be that of an earlier one that ends the run
            self.state.verdicts.add(result.verdict)
        progress.step, progress.batch, progress.lr = progress.step + 1, index, lr
        if result.nonfinite:
            progress.nonfinite_windows += 1
            log.warning("step %d dropped: loss or gradient not finite", progress.step)
        else:
            # On CUDA a sum on the device: nobody reads it before the epoch ends.
            progress.loss_sum = progress.loss_sum + result.loss_sum
            progress.weight_sum += result.weight
            if result.part_sums:
                progress.part_sums = add_part_sums(progress.part_sums, result.part_sums)
        if bus.on_step_end is not None:
            logs = {"loss": result.loss, **result.parts, "lr": lr}
            if result.grad_norm is not None:
                logs["grad_norm"] = result.grad_norm
            bus.on_step_end(trainer, LazyLogs(logs), result.applied)
        # Looked at, not called: alone a step shall cost nothing for it.
        if self.state.requests.are_shared:
            # At the end all agree: a signal shall not wait for its evaluation.
            ends = is_last or progress.step >= (trainer.max_steps or inf)
            self.state.requests.agree(may_be_told=not ends)

    def _serve_requests(self) -> None:
        """Evaluate and save where that was asked for; what is asked meanwhile waits."""
        # Waits for the device: who measures or saves needs the true counters.
        self.state.settle()
        if (reason := self.state.requests.take("evaluation")) is not None:
            self._evaluate(reason)
        self.state.progress.served = True
        if not self.trainer.is_stopping:  # else with the one that ends the run
            self._save_if_asked()

    def _save_if_asked(self) -> None:
        if (reason := self.state.requests.take("checkpoint")) is not None:
            self._announce_checkpoint(reason)

    def _end_epoch(self, complete: bool, seconds: float) -> None:
        """Evaluate, decide, report and save, in this order."""
        state, progress, requests = self.state, self.state.progress, self.state.requests
        state.settle()
        means = progress.means()  # reads of the device
        # A copy, to go back to if the run leaves during the evaluation.
        number, before = progress.epoch + 1, replace(progress)
        if not progress.weight_sum:
            log.warning("epoch %d trained nothing: no item counted or stayed", number)
        if complete:
            progress.end_epoch()
            self.reached = 0
            self.feed.end_epoch(before.batch)
        asked = requests.take("evaluation")
        self.is_extra = asked is None and not complete
        end = "epoch_end" if complete else "max_steps"
        try:
            metrics = self._evaluate(asked, end, means)
        except Abandoned:
            progress.roll_back(before)
            self.feed.reopen_epoch()
            raise
        progress.decided = -1 if self.is_extra else progress.step
        at = {"step": progress.step, "update": progress.update, "lr": progress.lr}
        row = {"epoch": number, **at, **metrics, "seconds": seconds}
        state.history.append(row)
        self.is_extra = not complete  # also where somebody asked for the metrics
        if self.bus.on_epoch_end is not None:
            self.bus.on_epoch_end(self.trainer, MappingProxyType(row))
        self._announce_checkpoint("epoch_end" if complete else "stop")
        self._save_if_asked()

    def _evaluate(
        self, asked: str | None, end: str = "", means: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Collect metrics, record them with their origin, and let deciders decide.

        Where something ends here, ``means`` are the trainer's own metrics up to it.
        """
        reason = "; ".join(filter(None, (end, asked)))
        trainer, state, latest = self.trainer, self.state, self.state.metrics
        results: list[tuple[str, Any]] = [("trainer", means)]
        # However often it is abandoned and made again, it and training draw the same.
        self.is_evaluating, self.row_is_due = True, means is not None
        try:
            with self.draws.put_back(), self.draws.undrawn(), self.modes.evaluation():
                results += self.bus.collect("evaluate", trainer=trainer, reason=reason)
            # At an epoch's end each producer takes its turn, and the trainer itself.
            num_due = 1 + len(self.bus.listeners("evaluate")) if means else None
            # One set of numbers: all processes decide by those of the main one.
            merged = trainer.strategy.on_main(lambda: latest.merged(results, num_due))
        except (Abandoned, Exception) as error:
            if asked is not None:
                state.requests.asked["evaluation"] = asked
            if state.requests.stops_run_after(error):
                raise Abandoned from error
            raise
        finally:
            self.is_evaluating = False
        heard = merged
        # Without a length that part may have been all: the means alone are new then.
        if asked is None and state.progress.decided == trainer.step:
            heard = {name: m for name, m in heard.items() if m[1] == "trainer"}
        if end == "max_steps":  # no run that goes on has means over a part of an epoch
            heard = {name: m for name, m in heard.items() if m[1] != "trainer"}
        metrics = latest.record_all(heard, trainer.step, trainer.epoch)
        if metrics and self.bus.on_metrics is not None:
            self.bus.on_metrics(trainer, MappingProxyType(metrics))
        state.requests.agree()
        return {name: value for name, (value, _) in merged.items()}

    def _announce_checkpoint(self, reason: str) -> None:
        self.state.requests.agree()
        self._end_is_announced = self.trainer.is_stopping
        if self.bus.on_checkpoint is not None:
            with self.draws.put_back(self.state.progress.place):
                self.bus.on_checkpoint(self.trainer, reason)
        self.state.requests.agree()
