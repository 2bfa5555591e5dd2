"""What a plugin sees of a run: counters, the plan, and requests.

``Trainer`` adds the loop. Plugins read here and ask here; they set nothing.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor, nn

from training.bus.bus import Bus
from training.bus.slots import plugins_on_stack
from training.checkpoint.optimizer_state import SavedGroup
from training.feed.batches import batch_to_device
from training.loop.criterion import Criterion
from training.loop.forward import Forward
from training.loop.length import RunLength, num_batches
from training.loop.metrics import Metrics
from training.loop.precision import Precision
from training.loop.progress import Progress, Request
from training.loop.train_mode import Modes
from training.loop.window import APPLIED
from training.readback import Readback
from training.signals.signals import Abandoned
from training.weighing.weigher import Weigher

log = logging.getLogger(__name__)

#: Requests that a run keeps at least for its history, beside those to stop.
MOST_REQUESTS = 1000


class RunView:
    """The part of a trainer that plugins use.

    Attributes:
        model: the raw module, on ``device``, never a wrapper around it.
        optimizer: the torch optimizer.
        scheduler: the torch scheduler passed to the trainer, or None.
        processor: what turns text and pictures into inputs and back, or None.
        train_dataloader: what was passed.
        val_dataloader: what was passed, or None; several by name.
        device: where the model runs.
        num_epochs: passes over the data in all.
        max_steps: steps after which the run ends, or None.
        gradient_accumulation_steps: batches of a full window.
        max_grad_norm: 2-norm that gradients are clipped to, or None.
        tf32: whether fp32 products may round to TF32; None: as the process has it.
        seed: the seed passed, or None.
        order_seed: the seed that orders the data.
        save_dir: folder to write below.
        metadata: JSON values that every checkpoint carries.
        metrics: the latest value of each metric, with step, epoch and producer.
        weights_are: ``"live"``, or which weights a plugin put in place: ``"best@120"``.
        train_seconds: seconds spent in the last call of ``train``.
        carried_states: plugin states of the loaded checkpoint, by name.
        resumed_from: the checkpoint this run goes on from, or None.
        epoch_state: states of the user's generators at the start of the epoch under
            way; None between two epochs, where they count as they are.
        owed: what a loaded checkpoint holds for the first iterator of the run that goes
            on (``data``, ``loader``, ``rng``); empty as soon as that stands.
        criterion: what the loss keeps beside the model.
        modes: which modules are in train and in eval mode while the run trains.
        joining_groups: parameter groups of the loaded checkpoint that had joined the
            saved run and are not in the optimizer yet.
        group_places: for each parameter group its place in the loaded checkpoint, None
            for one that is not in it; empty where that has no names.
        switches_before: what hooks may switch, when a checkpoint was loaded.
        is_in_window: whether batches were seen since the last boundary.
        configured_groups: the optimizer's options as configured, one mapping for each
            parameter group; None before they were looked at.
    """

    model: nn.Module
    criterion: Criterion
    modes: Modes
    optimizer: torch.optim.Optimizer
    scheduler: Any
    processor: Any
    train_dataloader: Iterable[Any]
    val_dataloader: Iterable[Any] | Mapping[str, Iterable[Any]] | None
    device: torch.device
    num_epochs: int
    max_steps: int | None
    gradient_accumulation_steps: int
    max_grad_norm: float | None
    tf32: bool | None
    seed: int | None
    order_seed: int
    save_dir: Path
    metadata: dict[str, Any]

    def __init__(
        self, precision: Precision, forward: Forward, weigher: Weigher
    ) -> None:
        self._precision = precision
        self._forward = forward
        self._weigher = weigher
        self.bus = Bus()
        self.progress = Progress()
        self._history: list[dict[str, Any]] = []
        self.metrics = Metrics()
        self._requests: list[Request] = []
        self.weights_are = "live"
        self.train_seconds = 0.0
        self.carried_states: dict[str, Any] = {}
        self.resumed_from: Path | None = None
        self.epoch_state: list[Tensor] | None = None
        self.owed: dict[str, Any] = {}
        self._resume: dict[str, Any] | None = None
        self.configured_groups: list[dict[str, Any]] | None = None
        self.joining_groups: list[SavedGroup] = []
        self.group_places: list[int | None] = []
        self.switches_before: dict[str, list[str]] = {}
        self.is_in_window = False
        self._wrapped_loader: Iterable[Any] | None = None
        self._stop: Request | None = None
        self._signal: Signals | None = None
        self._is_running = self._is_evaluating = self._row_is_due = False
        self._asked: dict[str, str] = {}
        self._unsettled: deque[tuple[int, Readback]] = deque()

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row (a plain dict) for each epoch; a copy, so changes stay outside."""
        return [dict(row) for row in self._history]

    @property
    def requests(self) -> tuple[Request, ...]:
        """What was asked for, in order: all stops, the latest 1000 of the rest."""
        return tuple(self._requests)

    @property
    def pending(self) -> dict[str, str]:
        """What is owed to whoever goes on from here: kind -> reasons.

        An evaluation that waits for the next boundary; what is saved now is itself the
        checkpoint that was asked for.
        """
        return {k: why for k, why in self._asked.items() if k == "evaluation"}

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.progress.epoch

    @property
    def step(self) -> int:
        """Attempted updates."""
        return self.progress.step

    @property
    def update(self) -> int:
        """Applied updates; on CUDA this may wait for those that are under way."""
        late = sum(verdict.value() == APPLIED for _, verdict in self._unsettled)
        return self.progress.update + late

    @property
    def batches_seen(self) -> int:
        """Batches of the current epoch that are in a finished window."""
        return self.progress.batch

    @property
    def precision(self) -> str:
        """``"fp32"``, ``"bf16"`` or ``"fp16"``."""
        return self._precision.name

    @property
    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of fp16, else None."""
        return self._precision.scaler

    @property
    def plugins(self) -> Mapping[str, Any]:
        """Name -> instance of every active plugin, in bus order."""
        return self.bus.plugins

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches of an epoch; None for a loader without a length.

        From ``on_setup`` on those of the loader that ``wrap_dataloader`` returned.
        """
        wrapped, given = self._wrapped_loader, self.train_dataloader
        return num_batches(given if wrapped is None else wrapped)

    @property
    def length(self) -> RunLength:
        """How long the run is, as planned from what is known now."""
        return RunLength(
            self.batches_per_epoch,
            self.num_epochs,
            self.gradient_accumulation_steps,
            self.max_steps,
        )

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch, the last partial window included."""
        return self.length.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the latest step is the last of its epoch; False if unknown."""
        return self.length.ends_epoch(self.step)

    @property
    def total_steps(self) -> int | None:
        """Planned steps of the whole run; None when nothing bounds them."""
        return self.length.total_steps

    @property
    def stop_reason(self) -> str | None:
        """Why training ended; None before and while it runs."""
        return None if self._stop is None else self._stop.reason

    @property
    def stop_owner(self) -> str | None:
        """Who ended it: a plugin's name, or ``"trainer"`` when the plan was done."""
        return None if self._stop is None else self._stop.owner

    @property
    def is_stopping(self) -> bool:
        """Whether the boundary at hand is the last one of the run."""
        return self._stop is not None or self._plan_is_done()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the run's forward passes; does nothing in fp32."""
        return self._precision.autocast()

    def compute_loss(
        self, batch: Any, samples: int | None = None
    ) -> tuple[Tensor, float]:
        """Return (0-d mean loss, weight) of one batch, as in training, no backward.

        Args:
            batch: on the host; weighed as in training.
            samples: in it, where the caller knows; None: as its entries tell.
        """
        weight = self._weigher.evaluated(batch, samples)
        with self.autocast():
            loss, weight, _ = self._forward(
                self.model, batch_to_device(batch, self.device), weight
            )
        return (loss / weight if self._weigher.is_sum and weight else loss), weight

    def require_metric(self, name: str, owner: str) -> None:
        """Raise ``MetricError`` with near matches if nobody will produce ``name``."""
        self.metrics.require(name, owner)

    def request_stop(self, reason: str) -> None:
        """End training at the next boundary; the first request is the one kept.

        A boundary is before the first batch of an epoch, the end of a window, or the
        end of an epoch. From ``on_train_end`` on a request is only noted.
        """
        request = self._ask("stop", reason)
        if self._stop is None:
            self._stop = request

    def request_checkpoint(self, reason: str) -> None:
        """Fire ``on_checkpoint`` at the next boundary, or the one being served."""
        self._want("checkpoint", reason)

    def request_evaluation(self, reason: str) -> None:
        """Fire ``evaluate`` and ``on_metrics`` at the next boundary.

        What is asked for while a boundary is served (``evaluate``, ``on_metrics``,
        ``on_epoch_end``, ``on_checkpoint``) waits for the boundary after this one; past
        the last it is granted once, before ``on_train_end``.
        """
        self._want("evaluation", reason)

    def abandon_if_leaving(self) -> None:
        """End an evaluation that a signal makes pointless; for use between its batches.

        The run then saves the state from before the evaluation and leaves; resumed, it
        evaluates first. Anywhere else, and without a signal, nothing happens.
        """
        if self._signal is not None and self._is_evaluating:
            raise Abandoned

    def _plan_is_done(self) -> bool:
        return self.length.is_over(self.epoch, self.step)

    def _stop_on_signal(self, number: Signals) -> None:
        self._signal = number
        self._stop = self._ask("stop", f"{number.name} received", "signal")

    def _save_on_signal(self, number: Signals) -> None:
        self._want("checkpoint", f"{number.name} received", "signal")

    def _want(self, kind: str, reason: str, owner: str | None = None) -> None:
        """Ask for ``kind`` at the next boundary; reasons that meet there are joined."""
        self._ask(kind, reason, owner)
        earlier = self._asked.get(kind)
        self._asked[kind] = f"{earlier}; {reason}" if earlier else reason

    def _ask(self, kind: str, reason: str, owner: str | None = None) -> Request:
        owner = owner or self._caller()
        if not self._is_running:
            log.warning(
                "%s asks for %s (%s) outside of train(), where nothing is granted; ask "
                "in a hook",
                *(owner, kind, reason),
            )
        request = Request(kind, owner, reason, self.step, self.epoch)
        self._requests.append(request)
        if len(self._requests) > 2 * MOST_REQUESTS:  # not at every request
            self._forget_requests()
        return request

    def _forget_requests(self) -> None:
        """Drop the oldest that are no stops: a checkpoint carries them all."""
        others = [r for r in self._requests if r.kind != "stop"]
        stale = set(map(id, others[:-MOST_REQUESTS]))
        self._requests[:] = [r for r in self._requests if id(r) not in stale]

    def _caller(self) -> str:
        """Return the name of the plugin that is being called, ``"user"`` for none."""
        for name, plugin in plugins_on_stack(sys._getframe(2)):
            if self.plugins.get(name) is plugin:  # else another trainer's, around this
                return name
        return "user"
