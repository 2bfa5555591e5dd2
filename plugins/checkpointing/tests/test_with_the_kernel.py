"""The plugin in real runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, Trainer


class Evaluates(Callback):
    """Delivers the given losses, one an epoch."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float]:
        if reason == "in between":
            return {"val_loss": 0.125}
        return {"val_loss": self.losses[trainer.epoch - 1]}


def build(*callbacks: Any, num_epochs: int = 4, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    return Trainer(
        model,
        [(torch.ones(2, 1), torch.ones(2, 1))] * 3,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=callbacks,
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        loss_fn=torch.nn.functional.mse_loss,
        **options,
    )


def test_the_guides_arguments_work(tmp_path):
    checkpoint = ModelCheckpointCallback(
        save_dir=tmp_path / "checkpoints",
        monitor="val_loss",
        mode="min",
        save_best_only=True,
        save_frequency=1,
        save_top_k=3,
        filename="checkpoint-{epoch:03d}-{val_loss:.4f}.pt",
    )
    build(Evaluates(4.0, 1.0, 3.0, 2.0), checkpoint).train()
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.pt"))
    assert names == [
        "checkpoint-002-1.0000.pt",
        "checkpoint-003-3.0000.pt",
        "checkpoint-004-2.0000.pt",
    ]


def test_a_run_resumed_from_last_ends_like_an_uninterrupted_one(tmp_path):
    losses = Evaluates(2.0, 3.0, 1.0, 4.0)
    whole = build(losses, ModelCheckpointCallback(tmp_path / "whole"))
    whole.train()
    part = build(losses, ModelCheckpointCallback(tmp_path / "part"), num_epochs=2)
    part.train()
    rest = build(losses, ModelCheckpointCallback(tmp_path / "part"))
    rest.load_checkpoint(part.plugins["checkpointing"].last_path)
    rest.train()
    assert torch.equal(rest.model.weight, whole.model.weight)
    for name in ("best_path", "last_path"):
        ours = getattr(rest.plugins["checkpointing"], name)
        assert ours.name == getattr(whole.plugins["checkpointing"], name).name


def test_an_evaluation_inside_an_epoch_can_be_the_best(tmp_path):
    class Asks(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 4:
                trainer.request_evaluation("in between")

    checkpoint = ModelCheckpointCallback(tmp_path)
    build(Evaluates(4.0, 3.0, 2.0, 1.0), checkpoint, Asks()).train()
    assert checkpoint.best_path.name == "checkpoint-001-0.1250-step4.pt"


def test_max_steps_inside_an_epoch_still_leaves_the_last(tmp_path):
    checkpoint = ModelCheckpointCallback(tmp_path, monitor=None)
    build(Evaluates(1.0, 1.0, 1.0), checkpoint, max_steps=5).train()
    assert checkpoint.last_path.name == "last-epoch001-step5.pt"


def test_a_stop_inside_an_epoch_leaves_the_last(tmp_path):
    class Stops(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 4:
                trainer.request_stop("enough")

    checkpoint = ModelCheckpointCallback(tmp_path)
    build(Evaluates(1.0, 1.0), checkpoint, Stops()).train()
    assert checkpoint.last_path.name == "last-epoch001-step4.pt"


def test_a_step_that_is_due_at_the_end_of_an_epoch_is_saved_there_once(tmp_path):
    checkpoint = ModelCheckpointCallback(
        tmp_path, save_best_only=False, save_top_k=-1, every_n_steps=3
    )
    build(Evaluates(1.0, 2.0), checkpoint, num_epochs=2).train()
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["checkpoint-001-1.0000.pt", "checkpoint-002-2.0000.pt"]


class Moves(Callback):
    """Changes the working directory at a hook, to a new folder below."""

    before = ("checkpointing",)

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def on_train_begin(self) -> None:
        self._move("on_train_begin")

    def on_step_end(self) -> None:
        self._move("on_step_end")

    def on_checkpoint(self) -> None:
        self._move("on_checkpoint")

    def on_train_end(self) -> None:
        self._move("on_train_end")

    def _move(self, hook: str) -> None:
        if hook == self.hook:
            self.hook = "done"
            os.mkdir("elsewhere")
            os.chdir("elsewhere")


@pytest.mark.parametrize(
    "hook", ["on_train_begin", "on_step_end", "on_checkpoint", "on_train_end"]
)
@pytest.mark.parametrize(
    ("save_dir", "options"),
    [
        pytest.param("saved", {}, id="a folder of its own"),
        pytest.param("saved", {"async_save": True}, id="in a thread"),
        pytest.param(None, {}, id="the run's folder"),
    ],
)
def test_a_change_of_the_working_directory_moves_no_checkpoint(
    tmp_path, monkeypatch, hook, save_dir, options
):
    monkeypatch.chdir(tmp_path)
    checkpoint = ModelCheckpointCallback(save_dir, monitor=None, **options)
    build(checkpoint, Moves(hook), num_epochs=2, save_dir="run").train()
    assert Path.cwd() == tmp_path / "elsewhere"
    assert list(Path.cwd().iterdir()) == []
    folder = tmp_path / (save_dir or "run/checkpoints")
    assert sorted(path.name for path in folder.iterdir()) == [
        "last-epoch002-step6.pt",
        "last.json",
        "manifest.json",
    ]
    assert checkpoint.last_path == folder / "last-epoch002-step6.pt"
