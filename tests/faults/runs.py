"""Small runs that the fault tests stop, kill, damage and resume."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from toy import Regression, regression_batches

from training import Callback, Trainer
from training.checkpoint.compare import first_difference
from training.checkpoint.state import capture
from training.hardware.rng import load_rng_state, rng_state


class Augmented(Dataset[Any]):
    """Rows with noise from all three global generators, or without any."""

    fingerprint = "a"
    source_fingerprint = "v1"

    def __init__(self, num_rows: int = 11, noise: bool = True) -> None:
        self.x, self.y = regression_batches(1, num_rows)[0]
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        x = self.x[index]
        if self.noise:
            x = x + random.random() + float(np.random.rand()) + torch.rand(4)
        return x, self.y[index], index


def loader_of(
    shuffle: bool = True, noise: bool = True, workers: int = 0, **options: Any
) -> Any:
    """Return a loader of 6 batches, the last one of a single row."""
    dataset = Augmented(noise=noise)
    return DataLoader(
        dataset,
        **{"batch_size": 2, **options},
        shuffle=shuffle,
        num_workers=workers,
    )


class Ids(Callback):
    """Keeps which rows were seen in which epoch; draws numbers; has progress."""

    name = "ids"

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.draws = 0.0

    def on_batch_begin(self, trainer: Trainer, inputs: Any) -> None:
        self.seen.append([trainer.epoch, *inputs[2].tolist()])

    def on_step_end(self) -> None:
        self.draws += random.random() + float(np.random.rand())

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self.draws, "seen": [list(each) for each in self.seen]}

    def load_state_dict(self, state: Any) -> None:
        self.draws, self.seen = state["draws"], [list(each) for each in state["seen"]]


class SavesEverywhere(Callback):
    """Saves at every boundary, which changes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer: Trainer) -> None:
        path = self.folder / f"{trainer.epoch}-{trainer.step}.pt"
        if not path.exists():
            trainer.save_checkpoint(path)


def mean_loss(model: Any, batch: Any) -> Any:
    """Return the loss of a batch whose third part is not for the model."""
    return model(batch[0], batch[1])["loss"]


def build(
    *callbacks: Any,
    loader: Any = None,
    dropout: float = 0.5,
    ambient: int | None = None,
    freeze: str | None = None,
    **options: Any,
) -> Trainer:
    """Return a trainer with AdamW, two epochs, a seed, and the Ids plugin."""
    model = Regression(dropout=dropout)
    if freeze is not None:
        model.get_submodule(freeze)._is_frozen = True  # type: ignore[assignment]
    if ambient is not None:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(ambient)
    given = {"num_epochs": 2, "seed": 3, "device": "cpu", "step_fn": mean_loss}
    return Trainer(
        model=model,
        train_dataloader=loader_of() if loader is None else loader,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        callbacks=[Ids(), *callbacks],
        **{**given, **options},
    )


def end_of(trainer: Trainer) -> dict[str, Any]:
    """Return the full state after a run, and the next draw of every generator.

    What a checkpoint could lose is read from where it lives, too.
    """
    state, scaler = capture(trainer), trainer.grad_scaler
    live = [trainer.model.state_dict(), trainer.optimizer.state_dict()]
    live += [] if scaler is None else [scaler.state_dict()]
    state = {**state, "requests": [], "plugins": {"ids": state["plugins"]["ids"]}}
    before = rng_state(trainer.device)
    load_rng_state(state["rng"], trainer.device)  # as the run has left them
    draws = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    load_rng_state(before, trainer.device)
    state = {**state, "draws": draws, "distributions": {}}
    return {**state, "live": live}


def resumed(path: Path, **options: Any) -> dict[str, Any]:
    """Return the end of a run that goes on from ``path``."""
    trainer = build(**options)
    trainer.load_checkpoint(path)
    trainer.train()
    return end_of(trainer)


def assert_same_end(left: Any, right: Any, where: str) -> None:
    """Fail with the first thing that differs."""
    found = first_difference(left, right)
    assert found is None, f"{where}: {found}"
