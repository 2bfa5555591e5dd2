"""Another configured rate on resuming is never passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import CheckpointError, Trainer


def scheduled(lr: float, **options: Any) -> Trainer:
    """Return a trainer of 4 steps whose rate a schedule moves."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    kind = options.pop("type")
    if kind == "object":
        made: Any = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        plugin = LearningRateSchedulerCallback(made, **options)
    else:
        plugin = LearningRateSchedulerCallback(type=kind, **options)
    return Trainer(
        model=model,
        train_dataloader=[(torch.ones(1, 1),)] * 2,
        optimizer=optimizer,
        num_epochs=2,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean(),
        callbacks=[plugin],
        seed=0,
    )


def saved(folder: Path, kind: str) -> Path:
    trainer = scheduled(0.1, type=kind)
    trainer.max_steps = 2
    trainer.train()
    trainer.num_epochs, trainer.max_steps = 2, None
    return trainer.save_checkpoint(folder / "a.pt")


KINDS = ["constant", "object"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_rate_is_refused_with_both_values_and_the_way_out(
    tmp_path: Path, kind: str
) -> None:
    path = saved(tmp_path, kind)
    trainer = scheduled(0.2, type=kind)
    trainer.load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"\[0\.2\].*\[0\.1\].*on_schedule_ch"):
        trainer.train()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rate_is_taken(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, kind)
    trainer = scheduled(0.1, type=kind)
    trainer.load_checkpoint(path)
    trainer.train()
    assert trainer.step == 4


@pytest.mark.parametrize(
    ("choice", "rate"), [("keep", 0.1), ("new", 0.2), ("rescale", 0.2)]
)
def test_with_consent_the_rate_is_the_chosen_one(
    tmp_path: Path, choice: Any, rate: float
) -> None:
    path = saved(tmp_path, "constant")
    trainer = scheduled(0.2, type="constant", on_schedule_change=choice)
    trainer.load_checkpoint(path)
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
