"""Plugins that save, choose, evaluate and write, together on weights in parts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, Trainer

pytestmark = pytest.mark.distributed

CLOSE = 1e-6
AT, EPOCHS = 6, 3  # of four steps each; the best check is that of step 4


class Saves(Callback):
    """Saves once, inside of an epoch."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == AT:
            trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == AT:
            trainer.save_checkpoint(self.path)


class Block(nn.Sequential):
    """A layer that is gathered by itself."""


def trained(folder: str, engine: str | None, from_: str = "") -> dict[str, Any]:
    """Train with everything on; return what the run ends with.

    Args:
        folder: of checkpoints and numbers; one of step ``AT`` is ``at.pt``.
        engine: None: without the plugin.
        from_: a checkpoint that is gone on from.
    """
    torch.manual_seed(0)
    model = nn.Sequential(Block(nn.Linear(4, 7), nn.Tanh()), nn.Linear(7, 1))
    rows = TensorDataset(torch.randn(11, 4), torch.randn(11, 1))
    best = {"monitor": "val_loss", "mode": "max", "restore_best_weights": True}
    best |= {"persist_best": "weights", "patience": 9}
    plugins: list[Any] = [
        {"checkpointing": {"save_dir": folder, "every_n_steps": 2}},
        {"early_stopping": best},
        {"evaluation": {"metrics": ["loss"]}},
        {"csv": {"filename": f"{folder}/numbers.csv"}},
    ]
    if engine is not None:
        plugins.insert(0, {"distributed": {"engine": engine}})
    trainer = Trainer(
        model,
        DataLoader(rows, batch_size=3, shuffle=True),
        DataLoader(rows, batch_size=4),
        optimizer=torch.optim.AdamW(model.parameters(), 0.01),
        loss_fn=nn.functional.mse_loss,
        plugins=plugins,
        callbacks=[Saves(f"{folder}/at.pt")],
        num_epochs=EPOCHS,
        max_grad_norm=0.5,
        seed=3,
        device="cpu",
    )
    if from_:
        trainer.load_checkpoint(from_)
    trainer.train()
    return {
        "step": trainer.step,
        "label": trainer.weights_are,
        "weights": [whole(p) for p in model.parameters()],
        "history": [{**row, "seconds": 0.0} for row in trainer.history],
    }


def whole(value: Any) -> Any:
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.detach().clone()


def steps_in(folder: Path) -> list[str]:
    with (folder / "numbers.csv").open() as file:
        return [row["step"] for row in csv.DictReader(file)]


def require_close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (a["step"], a["label"]) == (b["step"], b["label"])
    for x, y in zip(a["weights"], b["weights"], strict=True):
        assert float((x - y).abs().max()) < CLOSE
    for own, row in zip(a["history"], b["history"], strict=True):
        assert row == pytest.approx(own, abs=CLOSE)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_d34_all_plugins_together_and_resumed_alone_are_one_run(
    two: Ranks, tmp_path: Path, engine: str
) -> None:
    alone = trained(str(tmp_path / "alone"), None)
    for each in two.run(trained, str(tmp_path / "both"), engine):
        require_close(alone, each)
    one, both = (steps_in(tmp_path / name) for name in ("alone", "both"))
    assert one == both != []
    half = str(tmp_path / "both" / "at.pt")
    require_close(alone, trained(str(tmp_path / "rest"), None, half))
