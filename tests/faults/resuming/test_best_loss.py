"""The best weights are those of the model and of a loss that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from training import Callback
from training.trainer import Trainer


class Learnt(nn.Module):
    """A loss with a learnt scale and a counting buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.5))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        self.seen += 1  # type: ignore[misc]
        error = (model(batch[0]) * self.scale - batch[1]).square().mean()
        return error + self.scale.square().sum()


class Evaluates(Callback):
    """Is best after the second epoch, and keeps model and loss of that moment."""

    def __init__(self) -> None:
        self.best: list[dict[str, Tensor]] = []

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        if trainer.epoch == 2:
            self.best = states(trainer)
        return {"val_loss": [3.0, 1.0, 2.0, 4.0][trainer.epoch - 1]}


def states(trainer: Trainer) -> list[dict[str, Tensor]]:
    parts = (trainer.model.state_dict(), trainer.criterion.state_dict())
    return [{name: each.clone() for name, each in part.items()} for part in parts]


def build(*callbacks: Any, num_epochs: int = 4) -> Trainer:
    torch.manual_seed(0)
    model, loss = nn.Linear(1, 1), Learnt()
    return Trainer(
        model,
        [(torch.ones(2, 1), torch.ones(2, 1))] * 3,
        optimizer=torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1),
        callbacks=callbacks,
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        step_fn=loss,
        loss_per="samples",
    )


def stopper(**options: Any) -> EarlyStoppingCallback:
    return EarlyStoppingCallback(restore_best_weights=True, **options)


def assert_at(trainer: Trainer, expected: list[dict[str, Tensor]]) -> None:
    torch.testing.assert_close(states(trainer), expected, rtol=0, atol=0)
    assert trainer.weights_are == "best@6"


def test_the_loss_comes_back_from_a_copy() -> None:
    evaluates = Evaluates()
    trainer = build(evaluates, stopper())
    trainer.train()
    assert_at(trainer, evaluates.best)
    assert int(trainer.criterion.state_dict()["seen"]) == 6


def test_the_loss_comes_back_from_the_checkpoint_of_the_best_step(
    tmp_path: Path,
) -> None:
    evaluates, stops = Evaluates(), stopper()
    trainer = build(evaluates, stops, ModelCheckpointCallback(tmp_path))
    trainer.train()
    assert stops._weights.loss is None, "the file stands in for the copy"
    assert_at(trainer, evaluates.best)


@pytest.mark.parametrize("saved_by", ["this release", "an earlier one"])
def test_the_loss_comes_back_from_the_copy_in_a_checkpoint_if_that_has_it(
    tmp_path: Path, saved_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    evaluates = Evaluates()
    second = build(Evaluates(), stopper(persist_best="weights"))
    path = tmp_path / "a.pt"

    class Saves(Callback):
        after = ("early_stopping",)

        def on_checkpoint(self, trainer: Trainer) -> None:
            if trainer.epoch == 3:
                trainer.save_checkpoint(path)

    build(evaluates, stopper(persist_best="weights"), Saves()).train()
    second.load_checkpoint(path)
    if saved_by == "an earlier one":
        del second.state.carried_states["early_stopping"]["loss"]
    second.train()
    if saved_by == "this release":
        assert_at(second, evaluates.best)
    else:
        assert "kept nothing of the loss; its live weights stay" in caplog.text
        assert int(second.criterion.state_dict()["seen"]) == 12
