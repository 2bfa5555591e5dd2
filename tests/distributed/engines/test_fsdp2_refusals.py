"""What holds parameters of a model that fsdp2 would replace is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from training import ConfigError, Trainer

pytestmark = pytest.mark.distributed


class Scaled(nn.Module):
    """A loss that trains a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.scale * outputs - targets).square().mean()


class Decay:
    """A step function that holds weights itself, to decay them in the loss."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        error = (model(batch[0]) - batch[1]).square().mean()
        weight = self.held.weight if isinstance(self.held, nn.Module) else self.held
        return error if weight is None else error + weight.square().mean()


def said_of(
    model: nn.Module, rows: Dataset[Any], trained: Any, engine: str, **options: Any
) -> str:
    """Return what is said of a run that trains ``trained``, or that it has."""
    try:
        Trainer(
            model,
            DataLoader(rows, batch_size=2),
            optimizer=torch.optim.SGD(trained, 0.1),
            plugins=[{"distributed": {"engine": engine}}],
            loss_per="samples",
            device="cpu",
            **options,
        ).train()
    except ConfigError as error:
        return str(error)
    return "trained"


def told(what: str, engine: str) -> str:
    """Return what is said of a run, or that it has trained."""
    torch.manual_seed(0)
    model, loss = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), Scaled()
    groups: Any = [{"params": list(model.parameters())}]
    options: dict[str, Any] = {"loss_fn": loss}
    if what == "one group":
        groups[0]["params"].append(loss.scale)
    elif what == "two groups":
        groups.append({"params": [loss.scale]})
    else:
        held = {"a weight": model[0].weight, "no weight": None}[what]
        options = {"step_fn": Decay(held)}
    rows = TensorDataset(torch.ones(4, 4), torch.ones(4, 1))
    return said_of(model, rows, groups, engine, **options)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("one group", "group 0 of the optimizer holds parameters of the model"),
        ("a weight", "holds a parameter of the model by itself"),
    ],
)
def test_d40_what_fsdp2_would_replace_elsewhere_is_refused(
    two: Ranks, what: str, message: str
) -> None:
    for each in two.run(told, what, "fsdp2"):
        assert message in each
    assert two.run(told, what, "ddp") == ["trained"] * 2


@pytest.mark.parametrize("what", ["two groups", "no weight"])
def test_d40_what_fsdp2_replaces_nowhere_is_trained(two: Ranks, what: str) -> None:
    assert two.run(told, what, "fsdp2") == ["trained"] * 2


class Looked(nn.Module):
    """A table and a scale, of which some kinds cannot be sharded."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, sparse="sparse" in what)
        self.scale = nn.Parameter(torch.ones(() if what == "a scalar" else (1,)))
        self.table.weight.requires_grad_("frozen" not in what)

    def forward(self, rows: Tensor) -> Tensor:
        looked: Tensor = self.table(rows)
        return looked * self.scale


def looked_up(what: str, engine: str) -> str:
    """Return what is said of a run over such a model, or that it has trained."""
    torch.manual_seed(0)
    model = Looked(what)
    rows, loss_fn = TensorDataset(torch.arange(4), torch.ones(4, 3)), nn.MSELoss()
    return said_of(model, rows, model.parameters(), engine, loss_fn=loss_fn)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a scalar", "the parameter scale is 0-d"),
        ("sparse", "the gradient of table is sparse"),
    ],
)
def test_d40_kinds_of_parameters_that_fsdp2_cannot_shard_are_refused(
    two: Ranks, what: str, message: str
) -> None:
    for each in two.run(looked_up, what, "fsdp2"):
        assert message in each
        assert "or use engine ddp" in each
    assert two.run(looked_up, what, "ddp") == ["trained"] * 2


def test_d40_a_table_that_does_not_train_may_be_sparse(two: Ranks) -> None:
    assert two.run(looked_up, "frozen, sparse", "fsdp2") == ["trained"] * 2
