"""Processes whose settings, data or weights differ are refused, on all of them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, TrainbusError, Trainer

pytestmark = pytest.mark.distributed


def rows(number: int) -> TensorDataset:
    """Return rows of (x, y)."""
    drawn = torch.Generator().manual_seed(5)
    return TensorDataset(
        torch.randn(number, 4, generator=drawn), torch.randn(number, 1, generator=drawn)
    )


def mse(model: Any, batch: Any) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


class OnMain(Callback):
    """Changes what it is told to in the main process alone."""

    mutates = ("parameters", "optimizer")

    def __init__(self, what: str) -> None:
        self.what = what

    def on_setup(self, trainer: Trainer) -> None:
        if trainer.is_main and self.what == "a layer":
            trainer.model.bias.requires_grad_(False)

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.is_main and self.what == "a rate":
            trainer.optimizer.param_groups[0]["lr"] *= 0.9
        if trainer.is_main and self.what == "a weight":
            with torch.no_grad():
                next(trainer.model.parameters()).add_(1.0)


#: What rank 1 says of the plugin where rank 0 says nothing.
OPTIONS: dict[str, dict[str, Any]] = {
    "engines": {"engine": "fsdp2"},
    "whose data": {"data": "own"},
    "unused": {"find_unused_parameters": True},
}


class Model(nn.Module):
    """A layer, and what rank 1 has otherwise."""

    def __init__(self, kind: str, rank: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1 + (rank if kind == "a shape" else 0))
        if kind == "a type" and rank:
            self.layer.double()
        if kind == "an order" and rank:
            self.layer.weight = self.layer._parameters.pop("weight")
        if kind == "a layer more" and rank:
            self.more = nn.Linear(1, 1)
        if kind == "a buffer more" and rank:
            self.register_buffer("more", torch.ones(()))


class Scaled(nn.Module):
    """A loss that trains as many numbers of its own as ``size``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))


def refused(kind: str, engine: str) -> str:
    """Build a trainer where something differs by rank; return what is raised."""
    rank = int(os.environ["RANK"])
    model = Model(kind, rank)
    options = OPTIONS.get(kind, {}) if rank else {}
    if kind == "checkpoints":
        options = {"checkpoint": ["full", "sharded"][rank]}
    if kind == "sharded modules":
        options = {"shard_modules": [[], ["Linear"]][rank]}
    try:
        Trainer(
            model,
            [torch.ones(1)],
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            loss_fn=Scaled(1 + (rank if kind == "the loss" else 0)),
            plugins=[{"distributed": {"engine": engine, **options}}],
            device="cpu",
        )
    except TrainbusError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("engines", "engine is 'ddp' on rank 0, 'fsdp2' on rank 1, but all"),
        ("whose data", "data is 'split' on rank 0, 'own' on rank 1"),
        ("unused", "find_unused_parameters is False on rank 0, True on rank 1"),
        ("checkpoints", "checkpoint is 'full' on rank 0, 'sharded' on rank 1"),
        ("sharded modules", "shard_modules is () on rank 0, ('Linear',) on rank 1"),
    ],
)
def test_an_option_that_differs_is_refused_before_anything_is_exchanged(
    two: Ranks, kind: str, told: str
) -> None:
    engine = "fsdp2" if kind in ("checkpoints", "sharded modules") else "ddp"
    first, second = two.run(refused, kind, engine)
    assert told in first
    assert first == second


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("a shape", "model.layer.weight is (1, 4) of torch.float32 on rank 0, (2, 4)"),
        ("a type", "(1, 4) of torch.float32 on rank 0, (1, 4) of torch.float64 on"),
        ("a layer more", "model.more.weight is missing on rank 0, (1, 1) of"),
        ("a buffer more", "model.more is missing on rank 0, () of torch.float32 on"),
        ("an order", "weight 1 of the run is model.layer.weight on rank 0, model.la"),
        ("the loss", "loss.scale is (1,) of torch.float32 on rank 0, (2,) of"),
        ("nothing", ""),
    ],
)
def test_a_model_that_differs_is_refused_before_anything_is_exchanged(
    two: Ranks, kind: str, engine: str, told: str
) -> None:
    first, second = two.run(refused, kind, engine)
    assert told in first
    assert bool(first) == bool(told)
    assert first == second


def said(kind: str) -> str:
    """Train with something that differs by rank; return what is raised."""
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    loader: Any = DataLoader(rows(20), batch_size=4)
    options: dict[str, Any] = {"num_epochs": 2, "loss_per": "samples"}
    rate, decay = 0.01, 0.1
    if kind == "a rate from the start":
        rate += rank
    if kind == "weight decay":
        decay += rank
    if kind == "clipping":
        options["max_grad_norm"] = 1.0 + rank
    if kind == "accumulation":
        options["gradient_accumulation_steps"] = 1 + rank
    if kind == "epochs":
        options["num_epochs"] = 2 + rank
    if kind == "rows":
        loader = DataLoader(rows(18 + rank), batch_size=4)
    if kind == "batches":
        loader = DataLoader(rows(20 + 4 * rank), batch_size=4)
    if kind == "a list":
        loader = list(loader)[rank::2][:2]
    if kind == "validation rows":
        options["val_dataloader"] = DataLoader(rows(6 + rank), batch_size=4)
    if kind == "validation":
        options["val_dataloader"] = None if rank else DataLoader(rows(6), batch_size=4)
    does = kind in ("a rate", "a weight", "a layer")
    callbacks = [OnMain(kind)] if does else []
    trainer = Trainer(
        model,
        loader,
        optimizer=torch.optim.AdamW(model.parameters(), rate, weight_decay=decay),
        step_fn=mse,
        callbacks=callbacks,
        plugins=["distributed"],
        seed=0,
        device="cpu",
        **options,
    )
    try:
        trainer.train()
    except TrainbusError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("a rate from the start", "lr"),
        ("weight decay", "weight_decay"),
        ("clipping", "max_grad_norm is 1.0 on rank 0, 2.0 on rank 1"),
        ("accumulation", "gradient_accumulation_steps is 1 on rank 0, 2 on rank 1"),
        ("epochs", "num_epochs is 2 on rank 0, 3 on rank 1"),
        ("rows", "dataset_length is 18 on rank 0, 19 on rank 1"),
        ("batches", "dataset_length is 20 on rank 0, 24 on rank 1"),
        ("a list", "does not yield the same batch"),
        ("validation rows", "validation rows"),
        ("validation", "plugins is ['distributed', 'evaluation'] on rank 0"),
        ("a layer", "frozen weights is 'bias' on rank 0, [] on rank 1"),
        ("a rate", "the learning rate of group 0 is not the same on rank 1"),
        ("a weight", "weight is not the same on rank 1"),
        ("nothing", ""),
    ],
)
def test_what_differs_from_process_to_process_is_refused_on_all(
    two: Ranks, kind: str, told: str
) -> None:
    first, second = two.run(said, kind)
    assert told in first
    assert bool(first) == bool(told)
    assert first == second
