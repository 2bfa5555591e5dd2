"""A run whose weights lie in parts: what it ends with, and how far two are apart."""

from __future__ import annotations

from typing import Any

import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, Trainer

CLOSE = 1e-6
DDP, FSDP2 = {"engine": "ddp"}, {"engine": "fsdp2", "shard_modules": ["Block"]}
AT = 3  # steps of eight, inside of the first epoch


class Block(nn.Sequential):
    """A layer that is gathered by itself."""


class Saves(Callback):
    """Saves once, inside of an epoch."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == AT:
            trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == AT and self.path is not None:
            trainer.save_checkpoint(self.path)


def make(
    plugin: dict[str, Any], dropout: float = 0.0, path: str | None = None, **more: Any
) -> Trainer:
    """Return a run of a net whose first and last weights are tied."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4),
        Block(nn.Linear(4, 7), nn.Tanh(), nn.Dropout(dropout)),
        Block(nn.Linear(7, 4), nn.LayerNorm(4)),
        nn.Linear(4, 4),
    )
    model[3].weight = model[0].weight
    rows = TensorDataset(torch.randn(11, 4), torch.randn(11, 4))
    options: dict[str, Any] = {
        "optimizer": torch.optim.AdamW(model.parameters(), 0.01),
        "plugins": [{"distributed": plugin}],
        **more,
    }
    return Trainer(
        model,
        DataLoader(rows, batch_size=3, shuffle=True),
        loss_fn=nn.functional.mse_loss,
        loss_per="samples",
        callbacks=[Saves(path)],
        num_epochs=2,
        max_grad_norm=0.5,
        seed=3,
        device="cpu",
        **options,
    )


def whole(value: Any) -> Any:
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.detach().clone() if isinstance(value, Tensor) else value


def run(
    plugin: dict[str, Any], dropout: float, to: str | None, from_: str | None = None
) -> dict[str, Any]:
    """Train, from the start or a checkpoint; return what the run ends with."""
    trainer = make(plugin, dropout, to)
    if from_ is not None:
        trainer.load_checkpoint(from_)
    trainer.train()
    state = trainer.optimizer.state_dict()["state"]
    return {
        "weights": [whole(p) for p in trainer.model.parameters()],
        "moments": [[whole(v) for v in s.values()] for s in state.values()],
        "history": [{**row, "seconds": 0.0} for row in trainer.history],
    }


def furthest(a: Any, b: Any) -> float:
    """Return the largest difference of two nested values of the same structure."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max(furthest(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return max(furthest(x, y) for x, y in zip(a, b, strict=True))
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def runs(two: Ranks, size: int, *arguments: Any) -> list[dict[str, Any]]:
    return two.run(run, *arguments) if size == 2 else [run(*arguments)]
