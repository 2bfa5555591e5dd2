"""A number that a module counts in Python and no checkpoint holds is named."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training import Callback, Trainer

TOLD = "plain attributes: model.inner.heat;"


class Saves(Callback):
    """Saves after each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)


class Inner(nn.Linear):
    """Keeps a number beside its weights, and does ``what`` with it in each pass."""

    def __init__(self, what: str) -> None:
        super().__init__(1, 1)
        self.what, self.heat = what, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "cools":
            self.heat *= 0.9
        elif self.what == "is filled once":
            self.heat = 2.0
        elif self.what == "is not a number":
            self.odd = math.nan
        elif self.what == "comes late":
            self.late = getattr(self, "late", 0) + 1
        return super().forward(x * self.heat)


class Saved(Inner):
    """Has it in its ``state_dict``."""

    def get_extra_state(self) -> Any:
        return self.heat

    def set_extra_state(self, state: Any) -> None:
        self.heat = state


class Counts(torch.optim.SGD):
    """Counts its steps where ``place`` says."""

    def __init__(self, place: str, parameters: Any) -> None:
        super().__init__(parameters, lr=0.01)
        self.place, self.calls = place, 0

    def step(self, closure: Any = None) -> Any:
        if self.place == "attribute":
            self.calls += 1
        elif self.place == "group":
            self.param_groups[0].setdefault("calls", 0)
            self.param_groups[0]["calls"] += 1
        return super().step()


class Keeps(Counts):
    """Has it in a ``state_dict`` of its own."""

    def state_dict(self) -> Any:
        return super().state_dict() | {"calls": self.calls}


def trained(
    inner: nn.Module, path: Path, make_optimizer: Any = torch.optim.SGD
) -> None:
    model = nn.Sequential()
    model.inner = inner
    x = torch.arange(3.0).view(3, 1)
    Trainer(
        model,
        [(x, x)],
        optimizer=make_optimizer(model.parameters()),
        loss_fn=nn.functional.mse_loss,
        callbacks=[Saves(path)],
        num_epochs=4,
        device="cpu",
    ).train()


@pytest.mark.parametrize(
    ("inner", "count"),
    [
        pytest.param(Inner("cools"), 1, id="it moves all the time"),
        pytest.param(Inner("is filled once"), 0, id="a cache"),
        pytest.param(Inner("rests"), 0, id="it rests"),
        pytest.param(Inner("is not a number"), 0, id="NaN"),
        pytest.param(Saved("cools"), 0, id="it is saved"),
    ],
)
def test_r8_a_number_that_moves_and_is_in_no_checkpoint_is_named_once(
    inner: nn.Module, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(inner, tmp_path / "a.pt")
    assert caplog.text.count(TOLD) == count
    assert caplog.text.count("moves numbers") == count


def test_r8_one_that_the_first_pass_makes_is_named_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(Inner("comes late"), tmp_path / "a.pt")
    assert "plain attributes: model.inner.late;" in caplog.text


@pytest.mark.parametrize(
    ("kind", "place", "count"),
    [
        pytest.param(Counts, "attribute", 1, id="an attribute"),
        pytest.param(Counts, "group", 0, id="an option of its group"),
        pytest.param(Counts, "nowhere", 0, id="it rests"),
        pytest.param(Keeps, "attribute", 0, id="it is saved"),
    ],
)
def test_r8_a_number_that_an_optimizer_counts_by_itself_is_named(
    kind: Any, place: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(nn.Linear(1, 1), tmp_path / "a.pt", partial(kind, place))
    assert caplog.text.count("plain attributes: optimizer.calls;") == count
