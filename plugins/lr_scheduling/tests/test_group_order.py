"""Rates follow their groups by name, in whatever order those stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ReduceLROnPlateau, StepLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from trainbus_lr_scheduling.drivers import differences
from training import Callback, CheckpointError, Trainer

from .fakes import small_trainer

RATES = {"0": 0.1, "1": 0.02, "2": 0.003}
KINDS: dict[str, Any] = {
    "cosine": None,
    "step": lambda optimizer: StepLR(optimizer, 1, 0.5),
    "chained": lambda optimizer: ChainedScheduler([StepLR(optimizer, 1, 0.5)]),
    "plateau": lambda optimizer: ReduceLROnPlateau(
        optimizer,
        patience=0,
        min_lr=[group["lr"] / 9 for group in optimizer.param_groups],
    ),
}


class Evaluates(Callback):
    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 1.0}


def trainer_of(kind: str, order: str, **rates: float) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3)))
    groups = [
        {"params": list(model[int(at)].parameters()), "lr": {**RATES, **rates}[at]}
        for at in order
    ]
    optimizer = torch.optim.SGD(groups)
    make = KINDS[kind]
    if make is None:
        plugin = LearningRateSchedulerCallback(type="cosine", interval="epoch")
    else:
        interval: Any = None if kind == "plateau" else "epoch"
        plugin = LearningRateSchedulerCallback(make(optimizer), interval=interval)
    return small_trainer(model, optimizer, plugin, Evaluates(), num_epochs=4)


class Saves(Callback):
    after = ("lr_scheduling",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.epoch == 2:
            trainer.save_checkpoint(self.path)


def rates_of(trainer: Trainer) -> dict[float, float]:
    """Return the rate by the configured one, which each group has of its own."""
    found = trainer.optimizer.param_groups
    return {float(group["initial_lr"]): float(group["lr"]) for group in found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["012", "201", "210"])
def test_groups_in_another_order_keep_their_rates(
    kind: str, order: str, tmp_path: Path
) -> None:
    straight = trainer_of(kind, "012")
    straight.bus.register(Saves(tmp_path / "a.pt"))
    straight.train()
    again = trainer_of(kind, order)
    again.load_checkpoint(tmp_path / "a.pt")
    again.train()
    assert len(set(rates_of(straight))) == 3
    assert rates_of(again) == rates_of(straight)
    torch.testing.assert_close(
        again.model.state_dict(), straight.model.state_dict(), rtol=0, atol=0
    )


@pytest.mark.parametrize("order", ["012", "201"])
def test_another_rate_of_one_group_is_still_refused(order: str, tmp_path: Path) -> None:
    straight = trainer_of("cosine", "012")
    straight.bus.register(Saves(tmp_path / "a.pt"))
    straight.train()
    again = trainer_of("cosine", order, **{"1": 0.5})
    again.load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"optimizer\.lr is \["):
        again.train()


@pytest.mark.parametrize(
    ("name", "here", "saved", "told"),
    [
        ("base_lrs", [0.5, 0.5], [1.0, 1.0], "optimizer.lr is 0.5 now but 1.0 in"),
        ("base_lrs", [0.5, 0.1], [1.0, 1.0], "optimizer.lr is [0.5, 0.1] now but 1.0"),
        ("_milestones", [4], [2], "_milestones is [4] now but [2] in"),
    ],
)
def test_what_all_groups_share_is_told_once_and_any_other_list_as_it_is(
    name: str, here: Any, saved: Any, told: str
) -> None:
    found = differences({name: here}, {name: saved})
    assert found[name].startswith(told)
