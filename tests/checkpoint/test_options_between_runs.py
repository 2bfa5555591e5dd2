"""What a person sets on an optimizer between two runs is what the second is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Regression, regression_batches

from training import Callback, CheckpointError, Trainer


class Saves(Callback):
    """Saves each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.epoch}.pt")


def build(folder: Path, lr: float = 0.1, **options: Any) -> Trainer:
    model = Regression()
    return Trainer(
        model,
        regression_batches(4),
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        num_epochs=2,
        save_dir=folder,
        device="cpu",
        seed=0,
        **options,
    )


def set_rate(trainer: Trainer, lr: float) -> None:
    trainer.optimizer.param_groups[0]["lr"] = lr


def test_who_rolls_back_with_another_rate_consents_and_trains_with_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path)])
    trainer.train()
    set_rate(trainer, 0.01)
    with pytest.raises(CheckpointError, match=r"optimizer\.lr was 0\.1, is 0\.01"):
        trainer.load_checkpoint(tmp_path / "1.pt")
    told = trainer.load_checkpoint(tmp_path / "1.pt", allow_changes=["optimizer.lr"])
    assert "optimizer.lr was 0.1, is 0.01" in str(told)
    trainer.train()
    assert [row["lr"] for row in trainer.history] == [0.1, 0.01]


def test_who_rolls_back_and_sets_nothing_goes_on_as_it_was(tmp_path: Path) -> None:
    class Halves(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            set_rate(trainer, trainer.optimizer.param_groups[0]["lr"] / 2)

    trainer = build(tmp_path, callbacks=[Halves(), Saves(tmp_path)])
    for _ in range(2):
        trainer.train()
        trainer.load_checkpoint(tmp_path / "1.pt")
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.1 / 4


def test_what_another_trainer_has_moved_nobody_has_set(tmp_path: Path) -> None:
    class Halves(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            set_rate(trainer, 0.05)

    trainer = build(tmp_path, callbacks=[Saves(tmp_path)])
    trainer.train()
    Trainer(
        trainer.model,
        regression_batches(4),
        optimizer=trainer.optimizer,
        callbacks=[Halves()],
        device="cpu",
    ).train()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.05
    trainer.train(resume=tmp_path / "1.pt")
    assert [row["lr"] for row in trainer.history] == [0.1, 0.1]


def test_checkpoints_of_a_second_run_are_of_the_rate_that_was_set_for_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path)])
    trainer.train()
    set_rate(trainer, 0.01)
    trainer.train()
    with pytest.raises(CheckpointError, match=r"optimizer\.lr was 0\.01, is 0\.1"):
        build(tmp_path).load_checkpoint(tmp_path / "1.pt")
    build(tmp_path, lr=0.01).load_checkpoint(tmp_path / "1.pt")


def test_checkpoints_of_a_second_run_are_of_the_optimizer_that_was_set_for_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path)])
    trainer.train()
    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.003)
    trainer.train()
    again = build(tmp_path)
    again.optimizer = torch.optim.AdamW(again.model.parameters(), lr=0.003)
    again.train(resume=tmp_path / "1.pt")
    assert [row["lr"] for row in again.history] == [0.003, 0.003]
