"""A run on two processes ends as the run of one process does."""

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


class Ragged(Dataset[Any]):
    """Rows with token weights of many sizes, some of them 0."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        tokens = (index * 7) % 5
        mask = torch.zeros(6)
        mask[:tokens] = 1.0
        return {
            "x": torch.randn(6, 4, generator=drawn),
            "y": torch.randn(6, generator=drawn),
            "mask": mask,
        }


class Net(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def token_step(model: Net, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the mean loss over tokens and their number."""
    error = (model.layers(batch["x"]).squeeze(-1) - batch["y"]) ** 2
    tokens = batch["mask"].sum()
    return {"loss": (error * batch["mask"]).sum() / tokens, "weight": tokens.item()}


class Notes(Callback):
    """Keeps the loss and norm of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_step_end(self, logs: Mapping[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))
        self.norms.append(float(logs.get("grad_norm", 0.0)))


def trained(options: Mapping[str, Any], plugin: Mapping[str, Any]) -> dict[str, Any]:
    """Train; return weights, moments, losses, norms and history."""
    model, notes = Net(), Notes()
    made: dict[str, Any] = {
        "sgd": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9),
        "adamw": lambda ps: torch.optim.AdamW(ps, 0.01),
    }
    options = dict(options)
    optimizer = made[options.pop("optimizer", "adamw")](model.parameters())
    trainer = Trainer(
        model,
        DataLoader(Ragged(), batch_size=5, shuffle=True),
        optimizer=optimizer,
        step_fn=token_step,
        callbacks=[notes],
        plugins=[{"distributed": dict(plugin)}],
        num_epochs=3,
        seed=3,
        device="cpu",
        **options,
    )
    trainer.train()
    state = optimizer.state_dict()["state"]
    return {
        "weights": [p.detach().clone() for p in model.parameters()],
        "moments": [
            v.clone() for s in state.values() for v in s.values() if torch.is_tensor(v)
        ],
        "losses": notes.losses,
        "norms": notes.norms,
        "history": [{**row, "seconds": 0.0} for row in trainer.history],
    }


def furthest(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Return the largest difference of all that two runs ended with."""
    pairs = [*zip(a["weights"], b["weights"], strict=True)]
    pairs += zip(a["moments"], b["moments"], strict=True)
    pairs += [
        (torch.tensor(a[name]), torch.tensor(b[name])) for name in ("losses", "norms")
    ]
    rows = zip(a["history"], b["history"], strict=True)
    pairs += [
        (torch.tensor(float(x[name])), torch.tensor(float(y[name])))
        for x, y in rows
        for name in x
    ]
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_d6_the_gradient_of_a_window_is_that_of_all_its_batches(
    two: Ranks, optimizer: str, clip: float | None, accumulation: int
) -> None:
    options = {
        "optimizer": optimizer,
        "max_grad_norm": clip,
        "gradient_accumulation_steps": accumulation,
    }
    alone = trained(options, {})
    for each in two.run(trained, options, {}):
        assert furthest(alone, each) < CLOSE
