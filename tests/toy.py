"""Toy models and loaders that the kernel's tests share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, Trainer

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


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


def groups_of(model: Regression, *rates: Any) -> list[dict[str, Any]]:
    """Return a parameter group for each of the two layers, with a rate of its own."""
    layers = (model.layers[0], model.layers[3])
    return [
        {"params": layer.parameters(), "lr": rate}
        for layer, rate in zip(layers, rates, strict=True)
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


class Overflow(Callback):
    """Makes the gradients of some steps infinite, as an overflow does."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_batch_end(self, trainer: Trainer) -> None:
        if trainer.step + 1 in self.steps:
            for parameter in trainer.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(math.inf)


class SpoilsGradient(Callback):
    """Makes a gradient NaN before one step, as a plugin at fault does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            gradient = next(trainer.model.parameters()).grad
            assert gradient is not None
            gradient.fill_(math.nan)


class Fails(Callback):
    """Is switched off at the first step of a run, which looks at all plugins anew."""

    name = "fails"
    failure = "isolate"

    def on_step_end(self) -> None:
        raise RuntimeError("it always fails")


class Saves(Callback):
    """Saves at each boundary, such as an epoch's end, to ``run/{epoch}-{step}.pt``.

    With ``each_step`` behind each step, too.
    """

    def __init__(self, path: Path, each_step: bool = False) -> None:
        self.path, self.each_step = str(path), each_step

    def on_step_end(self, trainer: Trainer) -> None:
        if self.each_step:
            trainer.request_checkpoint("each step")

    def on_checkpoint(self, trainer: Trainer) -> None:
        at = {"epoch": trainer.epoch, "step": trainer.step}
        trainer.save_checkpoint(self.path.format(**at))


class Moves(Callback):
    """Calls ``moves`` after each step, unless it is None."""

    def __init__(self, moves: Callable[[], Any] | None) -> None:
        self.moves = moves

    def on_step_end(self) -> None:
        if self.moves is not None:
            self.moves()


class SavesAt(Callback):
    """Saves behind one step."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.request_checkpoint("now")

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if reason == "now":
            trainer.save_checkpoint(self.path)


def weights_of(model: nn.Module) -> list[Tensor]:
    """Return copies of all parameters and buffers."""
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def weights_are_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(each).all()) for each in weights_of(model))


def assert_equal_weights(model: nn.Module, expected: nn.Module | list[Tensor]) -> None:
    """Compare to the bit, with another model or with what ``weights_of`` returned."""
    weights = weights_of(expected) if isinstance(expected, nn.Module) else expected
    for ours, other in zip(weights_of(model), weights, strict=True):
        assert torch.equal(ours, other)
