"""A small network whose layers are defined in any order, and its runs by name."""

from __future__ import annotations

from typing import Any

import torch
from faults.runs import loader_of
from torch import Tensor, nn

from training import Trainer
from training.checkpoint.compare import first_difference as first_difference_of
from training.checkpoint.state import capture

#: A run's clock, and the rate of whichever group is the first.
IGNORED = frozenset({"seconds", "lr"})
LAYERS = ("first", "second", "last")


class Net(nn.Module):
    """Three layers, defined in any order; the first one is rectified."""

    def __init__(self, order: tuple[str, ...] = LAYERS, tied: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        made = {"first": (4, 4), "second": (4, 4), "last": (4, 1)}
        layers = {name: nn.Linear(*sizes) for name, sizes in made.items()}
        for name in order:
            setattr(self, name, layers[name])
        if tied == "before":
            self.alias = self.second
        elif tied == "after":
            self.aa = self.second

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        return {"loss": nn.functional.mse_loss(self.last(hidden), y)}


def first_difference(left: Any, right: Any) -> str | None:
    return first_difference_of(left, right, ignored=IGNORED)


def mean_loss(model: Any, batch: Any) -> Any:
    return model(batch[0], batch[1])["loss"]


def trainer_of(net: nn.Module, optimizer: Any, *callbacks: Any, **options: Any) -> Any:
    given = {"num_epochs": 3, "seed": 3, "device": "cpu", "step_fn": mean_loss}
    return Trainer(
        net,
        loader_of(),
        optimizer=optimizer,
        callbacks=list(callbacks),
        **{**given, **options},
    )


def end_of(trainer: Trainer) -> dict[str, Any]:
    """Return the end of a run by names, whatever the order in model and optimizer."""
    state = capture(trainer)
    names = {
        id(p): name
        for name, p in trainer.model.named_parameters(remove_duplicate=False)
    }
    moments = {names[id(p)]: dict(s) for p, s in trainer.optimizer.state.items()}
    rates = {
        names[id(p)]: float(group["lr"])
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    kept = {"model", "progress", "history", "rng", "trainable", "in_eval"}
    return {
        **{name: state[name] for name in kept},
        "moments": moments,
        "rates": rates,
        "live": dict(trainer.model.named_parameters()),
    }
