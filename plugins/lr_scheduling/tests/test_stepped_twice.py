"""A scheduler that the plugin steps is stepped by nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    LambdaLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, ConfigError, Trainer

from .fakes import small_trainer


class Steps(Callback):
    """Steps a scheduler in one hook, as a loop of one's own does."""

    def __init__(self, scheduler: Any, hook: str) -> None:
        def step() -> None:
            scheduler.step(*[1.0] * isinstance(scheduler, ReduceLROnPlateau))

        setattr(self, hook, step)


class Evaluates(Callback):
    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 1.0}


def sequence(optimizer: Any) -> LRScheduler:
    parts = [StepLR(optimizer, 1, 0.5), StepLR(optimizer, 1, 0.9)]
    return SequentialLR(optimizer, parts, milestones=[1])


MAKES: dict[str, Any] = {
    "step": lambda optimizer: StepLR(optimizer, 1, 0.5),
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda at: 0.5**at),
    "sequence": sequence,
    "plateau": lambda optimizer: ReduceLROnPlateau(optimizer, patience=0),
}


def trainer_of(kind: str, hook: str | None, interval: Any = None) -> Trainer:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = MAKES[kind](optimizer)
    plugin = LearningRateSchedulerCallback(scheduler, interval=interval)
    beside = [Evaluates(), *([Steps(scheduler, hook)] if hook else [])]
    return small_trainer(model, optimizer, plugin, *beside, num_epochs=3)


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("hook", ["on_step_end", "on_epoch_end"])
def test_who_else_steps_it_is_refused_in_a_sentence(kind: str, hook: str) -> None:
    with pytest.raises(ConfigError, match="somebody else steps it, too; take its step"):
        trainer_of(kind, hook).train()


@pytest.mark.parametrize("hook", ["on_step_end", "on_epoch_end"])
def test_who_else_steps_one_that_counts_updates_is_refused(hook: str) -> None:
    with pytest.raises(ConfigError, match=r"StepLR was left at \d and is at \d "):
        trainer_of("step", hook, "step").train()


@pytest.mark.parametrize("kind", MAKES)
def test_one_that_the_plugin_alone_steps_trains_twice_and_resumes(
    kind: str, tmp_path: Path
) -> None:
    trainer = trainer_of(kind, None, None if kind == "plateau" else "epoch")
    for _ in range(2):
        trainer.max_steps = 4
        trainer.train()
    path = trainer.save_checkpoint(tmp_path / "a.pt")
    again = trainer_of(kind, None, None if kind == "plateau" else "epoch")
    again.max_steps = 4
    again.load_checkpoint(path)
    again.max_steps = None
    again.train()
    assert again.step == 6
