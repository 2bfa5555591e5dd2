"""Toy models and loaders that the kernel's tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, Trainer


class Regression(nn.Module):
    """Linear regression that returns its mean squared error, with optional dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.mse_loss(self.layers(x), y)}


def regression_batches(num_batches: int = 4, size: int = 2) -> list[Any]:
    """Return batches of x (size, 4) and y (size, 1), always the same ones."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 4, generator=generator),
            torch.randn(size, 1, generator=generator),
        )
        for _ in range(num_batches)
    ]


def shuffled_loader(num_rows: int = 22, size: int = 2, workers: int = 0) -> Any:
    """Return a shuffling DataLoader without a generator of its own."""
    batches = regression_batches(1, num_rows)
    return DataLoader(
        TensorDataset(*batches[0]), batch_size=size, shuffle=True, num_workers=workers
    )


def make_trainer(
    model: nn.Module | None = None,
    batches: Any = None,
    *callbacks: Any,
    lr: float = 0.1,
    **options: Any,
) -> Trainer:
    """Return a CPU trainer with SGD over toy data."""
    model = Regression() if model is None else model
    return Trainer(
        model=model,
        train_dataloader=batches if batches is not None else regression_batches(),
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        callbacks=list(callbacks),
        **{"device": "cpu", **options},
    )


class Recorder(Callback):
    """Keeps what it hears: (hook, step, epoch)."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.logs: list[dict[str, float]] = []
        self.rows: list[dict[str, float]] = []

    def on_setup(self) -> None:
        self.heard.append("on_setup")

    def metric_names(self) -> list[str]:
        self.heard.append("metric_names")
        return ["val_loss"]

    def on_train_begin(self, resumed: bool) -> None:
        self.heard.append("on_train_begin")

    def on_epoch_begin(self) -> None:
        self.heard.append("on_epoch_begin")

    def on_batch_begin(self, batch: int) -> None:
        self.heard.append(f"on_batch_begin {batch}")

    def on_batch_end(self, batch: int) -> None:
        self.heard.append(f"on_batch_end {batch}")

    def on_before_step(self) -> None:
        self.heard.append("on_before_step")

    def on_step_end(self, trainer: Trainer, logs: Any) -> None:
        self.heard.append(f"on_step_end {trainer.step}")
        self.logs.append(dict(logs))

    def evaluate(self) -> dict[str, float]:
        self.heard.append("evaluate")
        return {"val_loss": 1.0}

    def on_metrics(self) -> None:
        self.heard.append("on_metrics")

    def on_epoch_end(self, trainer: Trainer, metrics: Any) -> None:
        self.heard.append(f"on_epoch_end {trainer.epoch}")
        self.rows.append(dict(metrics))

    def on_checkpoint(self, reason: str) -> None:
        self.heard.append(f"on_checkpoint {reason}")

    def on_train_end(self) -> None:
        self.heard.append("on_train_end")

    def on_exception(self) -> None:
        self.heard.append("on_exception")

    def on_close(self) -> None:
        self.heard.append("on_close")


def weights_of(model: nn.Module) -> list[Tensor]:
    """Return copies of all parameters and buffers."""
    return [tensor.detach().clone() for tensor in model.state_dict().values()]
