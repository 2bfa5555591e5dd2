"""A trainer that counts epochs, and callbacks that have begun with it."""

from __future__ import annotations

from typing import Any

import torch

from trainbus_early_stopping import EarlyStoppingCallback
from training import Bus, MetricError, Trainer
from training.plugin import Strategy


class FakeTrainer:
    """Counts epochs of two steps, and keeps what was asked for."""

    def __init__(self, *plugins: Any) -> None:
        self.epoch = self.step = 0
        self.metrics = {"train_loss": 1.0}
        self.resumed_from = None
        self.is_extra_evaluation = False
        self.model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(self.model.parameters())
        self.criterion = Trainer(self.model, [], optimizer=optimizer).criterion
        self.bus, self.strategy = Bus(), Strategy()
        self.bus.register_all([(None, plugin) for plugin in plugins])
        self.stop_reason: str | None = None
        self.weights_are = "live"

    def require_metric(self, name: str, owner: str, mode: object = None) -> None:
        if name not in ("val_loss", "accuracy"):
            raise MetricError(f"{owner} watches {name!r}, but there is: val_loss")

    def request_stop(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason

    def run_epoch(self, stopper: EarlyStoppingCallback, **metrics: float) -> None:
        """Train and evaluate; the weight equals the step count."""
        self.epoch, self.step = self.epoch + 1, self.step + 2
        torch.nn.init.constant_(self.model.weight, self.step)
        stopper.on_metrics(self, {"train_loss": 1.0, **metrics})
        stopper.on_checkpoint(self)


def begun(trainer: Any = None, **options: Any) -> tuple[EarlyStoppingCallback, Any]:
    trainer = trainer or FakeTrainer()
    stopper = EarlyStoppingCallback(**options)
    stopper.on_setup()
    stopper.on_train_begin(trainer, resumed=False)
    return stopper, trainer


def resumed(
    state: dict[str, Any], epoch: int, **options: Any
) -> tuple[EarlyStoppingCallback, FakeTrainer]:
    trainer = FakeTrainer()
    trainer.epoch, trainer.step = epoch, 2 * epoch
    torch.nn.init.constant_(trainer.model.weight, trainer.step)
    stopper = EarlyStoppingCallback(**options)
    stopper.on_setup()
    stopper.load_state_dict(state)
    stopper.on_train_begin(trainer, resumed=True)
    return stopper, trainer
