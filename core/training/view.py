"""What plugins see of a run and may ask of it, and the records that it shows.

``Trainer`` is this to them, whatever it is made of. Plugins read here and ask here;
all that they set is ``weights_are``, where they put weights in place. The evaluation of
this project reads ``state`` of a trainer, too: it is released with it, and that name is
promised to nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.hardware.strategy import Strategy
    from training.modules.loss_state import LossState
    from training.modules.train_mode import Modes


@dataclass(frozen=True, slots=True)
class Request:
    """What a plugin asked for, kept for the history.

    Attributes:
        kind: ``"stop"``, ``"checkpoint"`` or ``"evaluation"``.
        owner: the name of the plugin that asked; ``"user"`` for anybody else.
        reason: its words.
        step: ``trainer.step`` when it asked.
        epoch: ``trainer.epoch`` when it asked.
    """

    kind: str
    owner: str
    reason: str
    step: int
    epoch: int


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One measured value.

    Attributes:
        value: the number; may be NaN or infinite.
        step: ``trainer.step`` when it was measured.
        epoch: ``trainer.epoch`` when it was measured.
        producer: the name of the plugin that measured it.
    """

    value: float
    step: int
    epoch: int
    producer: str


class TrainerView(Protocol):
    """The part of a trainer that plugins may rely on.

    Attributes:
        model: the raw module, on ``device``, never a wrapper around it.
        optimizer: the torch optimizer.
        scheduler: the torch scheduler passed to the trainer, or None.
        processor: what turns what rows hold into inputs and back, or None.
        recipe: task, family and processor as a configuration named them, or None.
        train_dataloader: what was passed.
        device: where the model runs.
        strategy: by which processes the run is computed.
        rank: which of them this one is; 0 alone.
        world_size: how many they are; 1 alone.
        is_main: whether this is the one that writes files; True alone.
        num_epochs: passes over the data in all.
        max_steps: steps after which the run ends, or None.
        gradient_accumulation_steps: batches of a full window.
        max_grad_norm: 2-norm that gradients are clipped to, or None.
        nonfinite: ``"stop"`` or ``"skip"``: what follows a NaN or infinite loss.
        tf32: whether fp32 products may round to TF32; None: as the process has it.
        seed: the seed passed, or None.
        save_dir: folder to write below.
        metadata: JSON values that every checkpoint carries.
        val_dataloader: what was passed, or what plugins made of it; several by name.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        grad_scaler: the loss scaler of fp16, else None.
        modes: which modules are in train and in eval mode while the run trains; below
            ``with modes.evaluation():`` all are in eval mode, with those that the loss
            uses, and then as before.
        group_places: for each parameter group of the optimizer the place that it had
            in the checkpoint that was loaded, None for one that is not in it; empty
            where that names none.
        plugins: name -> instance of every active plugin, in bus order.
        bus: asks the hooks that a plugin asks in its own time: ``bus.collect(name,
            ...)``, or ``bus.<name>(...)``, which is None while nobody listens;
            ``bus.name_of(plugin)`` is its name in the run, and
            ``bus.unregister(name)`` takes it out.
        epoch: completed epochs.
        step: attempted updates.
        update: applied updates; on CUDA this may wait for those that are under way.
        batches_seen: batches of the current epoch that are in a finished window.
        history: one row (a plain dict) for each epoch; a copy, so changes stay outside.
        metrics: the latest value of each metric, with step, epoch and producer.
        weights_are: ``"live"``, or which weights a plugin put in place: ``"best@120"``;
            that plugin sets it.
        resumed_from: the checkpoint this run goes on from, or None.
        batches_per_epoch: batches of an epoch; None for a loader without a length. From
            ``on_setup`` on those of the loader that ``wrap_dataloader`` returned.
        steps_per_epoch: steps of an epoch, the last partial window included.
        total_steps: planned steps of the whole run; None when nothing bounds them.
        ends_epoch: whether the latest step is the last of its epoch; False if unknown.
        requests: what was asked for, in order: all stops, and at least the latest 1000
            of the rest.
        pending: what is owed to whoever goes on from here: kind -> reasons. An
            evaluation that waits for the next boundary; what is saved now is itself the
            checkpoint that was asked for.
        stop_reason: why the run ends, or has ended; None while nothing ends it.
        stop_owner: who ended it: a plugin's name, ``"trainer"`` when the plan was
            done, ``"signal"``, or ``"error"`` where an evaluation failed.
        is_stopping: whether the boundary at hand is the last one of the run.
        is_extra_evaluation: whether metrics are measured only because ``max_steps``
            ends the run inside an epoch. One with more steps would not measure here, so
            who decides by them leaves these out: else a run that goes on were another.
            In ``on_epoch_end``, whether it fires for such a part of an epoch, whose
            ``train_loss`` its row alone has.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    processor: Any
    recipe: Any
    train_dataloader: Iterable[Any]
    device: torch.device
    strategy: Strategy
    rank: int
    world_size: int
    is_main: bool
    num_epochs: int
    max_steps: int | None
    gradient_accumulation_steps: int
    max_grad_norm: float | None
    nonfinite: str
    tf32: bool | None
    seed: int | None
    save_dir: Path
    metadata: dict[str, Any]
    val_dataloader: Iterable[Any] | Mapping[str, Iterable[Any]] | None
    precision: str
    grad_scaler: torch.amp.GradScaler | None
    modes: Modes
    group_places: list[int | None]
    plugins: Mapping[str, Any]
    bus: Any
    epoch: int
    step: int
    update: int
    batches_seen: int
    history: list[dict[str, Any]]
    metrics: Mapping[str, MetricValue]
    weights_are: str
    resumed_from: Path | None
    batches_per_epoch: int | None
    steps_per_epoch: int | None
    total_steps: int | None
    ends_epoch: bool
    requests: tuple[Request, ...]
    pending: dict[str, str]
    stop_reason: str | None
    stop_owner: str | None
    is_stopping: bool
    is_extra_evaluation: bool

    @property
    def criterion(self) -> LossState:
        """What the loss keeps beside the model."""

    @property
    def order_seed(self) -> int:
        """The seed passed; without one that of the process, or of the saved run."""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the run's forward passes; does nothing in fp32."""

    def compute_loss(
        self,
        batch: Any,
        samples: int | None = None,
        moved: Any = None,
        parts: dict[str, Tensor | float] | None = None,
    ) -> tuple[Tensor, float]:
        """Return (0-d mean loss, weight) of one batch, as in training, no backward.

        Args:
            batch: on the host; weighed as in training.
            samples: in it, where the caller knows; None: as its entries tell.
            moved: the batch on the device, where the caller has it there already.
            parts: takes what ``step_fn`` returned beside the loss, by name.
        """

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write all state durably to ``path``; call it in ``on_checkpoint``.

        Args:
            path: of the file, which the main process writes; all call this. Where
                ``strategy.saves_parts``, of a folder into which each of them writes.
        Raises:
            CheckpointError: the file could not be written, or a run that went on from
                here would be another; nothing is lost.
        """

    def require_metric(self, name: str, owner: str, mode: str | None = None) -> None:
        """Raise ``MetricError`` with near matches if nobody will produce ``name``.

        Args:
            name: of the metric.
            owner: who watches it, for messages, such as ``"early_stopping.monitor"``.
            mode: ``"min"`` or ``"max"``, if it decides which value is the best; warns
                of an accuracy, and its like, whose smallest value would be.
        """

    def request_stop(self, reason: str) -> None:
        """End training at the next boundary; the first request is the one kept.

        A boundary is before the first batch of an epoch, the end of a window, or the
        end of an epoch. From ``on_train_end`` on a request is only noted.

        Of several processes any may ask, here as for the others: it holds for all, and
        shows in ``stop_reason`` and ``is_stopping``, once they agree: after this event.
        """

    def request_checkpoint(self, reason: str) -> None:
        """Fire ``on_checkpoint`` at the next boundary, or the one being served."""

    def request_evaluation(self, reason: str) -> None:
        """Fire ``evaluate`` and ``on_metrics`` at the next boundary.

        What is asked for while a boundary is served (``evaluate``, ``on_metrics``,
        ``on_epoch_end``, ``on_checkpoint``) waits for the boundary after this one; past
        the last it is granted once, before ``on_train_end``.
        """

    def abandon_if_leaving(self) -> None:
        """End an evaluation that a signal makes pointless; for use between its batches.

        The run then saves the state from before the evaluation and leaves; resumed, it
        evaluates first. Anywhere else, and without a signal, nothing happens; nor where
        several processes compute the run, since one may have more batches than another.
        """

    def abandon_together(self) -> None:
        """As ``abandon_if_leaving``, of several processes, all of them or none.

        Each calls it, and as often, since each waits for the others: once for each
        batch of a loader that is divided among them. Alone it is the same.
        """
