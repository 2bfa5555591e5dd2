"""Weights in parts on two processes: a run ends as that of one process does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from training import Callback, Trainer

pytestmark = pytest.mark.distributed

CLOSE = 1e-6
FSDP2 = {"engine": "fsdp2", "shard_modules": ["Block"]}


class Rows(Dataset[Any]):
    """Rows with token weights."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        mask = torch.zeros(6)
        mask[: self._tokens[index]] = 1.0
        return {
            "x": torch.randn(6, 4, generator=drawn),
            "y": torch.randn(6, generator=drawn),
            "mask": mask,
        }


#: Tokens of each row, of loaders with batches of 4 in order.
DATA = {
    "plain": [6] * 12,
    "ragged": [6, 1, 3, 2, 5, 5, 1, 4, 2, 6, 3],
    "a part of weight 0": [6, 3, 0, 0, 0, 0, 2, 1, 4, 0, 0, 0],
    "a last batch of 1": [6, 1, 3, 2, 5, 5, 1, 4, 2],
}


class Block(nn.Module):
    """A layer that is gathered by itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) + x


class Net(nn.Module):
    """Two blocks between two layers; widths that two processes cannot halve."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(4, 7)
        self.blocks = nn.Sequential(Block(7), Block(7))
        self.leave = nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.blocks(self.enter(x)))


def token_step(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean loss over tokens; 0/0 without any."""
    error = (model(batch["x"]).squeeze(-1) - batch["y"]) ** 2
    return (error * batch["mask"]).sum() / batch["mask"].sum()


def tokens(batch: Mapping[str, Tensor]) -> float:
    return float(batch["mask"].sum())


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9),
    "adamw": lambda ps: torch.optim.AdamW(ps, 0.01),
    "fused": lambda ps: torch.optim.AdamW(ps, 0.01, fused=True),
    "fused sgd": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9, fused=True),
    "foreach": lambda ps: torch.optim.AdamW(ps, 0.01, foreach=True),
}


class Notes(Callback):
    """Keeps the loss and norm of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_step_end(self, logs: Mapping[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))
        self.norms.append(float(logs.get("grad_norm", 0.0)))


def whole(value: Any) -> Any:
    """Return a tensor whole, on its own."""
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.detach().clone()


def trained(
    data: str, options: Mapping[str, Any], plugin: Mapping[str, Any]
) -> dict[str, Any]:
    """Train; return weights, moments, losses, norms and history."""
    model, notes, options = Net(), Notes(), dict(options)
    make = OPTIMIZERS[options.pop("optimizer", "adamw")]
    optimizer = make(model.parameters())
    trainer = Trainer(
        model,
        DataLoader(Rows(DATA[data]), batch_size=4),
        optimizer=optimizer,
        step_fn=token_step,
        loss_per=tokens,
        callbacks=[notes],
        plugins=[{"distributed": dict(plugin)}],
        num_epochs=2,
        seed=3,
        device="cpu",
        **options,
    )
    trainer.train()
    state = optimizer.state_dict()["state"]
    rows = [[v for k, v in r.items() if k != "seconds"] for r in trainer.history]
    return {
        "weights": [whole(p) for p in model.parameters()],
        "moments": [
            whole(v) for s in state.values() for v in s.values() if torch.is_tensor(v)
        ],
        "losses": torch.tensor(notes.losses),
        "norms": torch.tensor(notes.norms),
        "history": torch.tensor(rows, dtype=torch.float64),
    }


def furthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest difference of all that two runs ended with."""
    assert a.keys() == b.keys()
    pairs: list[Any] = []
    for name, value in a.items():
        is_many = isinstance(value, list)
        pairs += zip(value, b[name], strict=True) if is_many else [(value, b[name])]
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "fused"])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("data", DATA)
def test_d6_d11_weights_in_parts_end_as_those_of_one_process(
    two: Ranks, data: str, accumulation: int, clip: float | None, optimizer: str
) -> None:
    options = {
        "optimizer": optimizer,
        "max_grad_norm": clip,
        "gradient_accumulation_steps": accumulation,
    }
    alone = trained(data, options, {})
    for each in two.run(trained, data, options, FSDP2):
        assert furthest(alone, each) < CLOSE
