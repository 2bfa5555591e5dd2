"""Of what a run carries from batch to batch it is told where a resumed one lacks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from training import Callback, Trainer

TOLD = "plain attributes or variables"
X = torch.linspace(-1, 1, 24).view(4, 2, 3)
BATCHES = [(X, X[:, -1]), (X.flip(0), X[:, 0])]


class Saves(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.epoch}.pt")


@dataclass
class State:
    h: Any = None


class Pair(NamedTuple):
    h: Any = None
    c: Any = None


class Net(nn.Module):
    """A recurrent model; a subclass says where its state is."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 3)
        self.h: Any = None
        self.st: Any = {"h": None}
        self.cache: Any = None

    def run(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.cell(x, state)
        out: Tensor = self.head(y[:, -1])
        return out, tuple(each.detach() for each in state)


def a_tuple(self: Any, x: Tensor) -> Tensor:
    y, self.h = self.run(x, self.h)
    return y


def a_list(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, None if self.h is None else tuple(self.h))
    self.h = list(state)
    return y


def a_named_tuple(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.h)
    self.h = Pair(*state)
    return y


def a_mapping(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.st["h"])
    self.st = {"h": state}
    return y


def an_item(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.st["h"])
    self.st["h"] = state
    return y


def an_item_by_get(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.st.get("h"))
    self.st["h"] = state
    return y


def an_item_by_pop(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.st.pop("h", None))
    self.st["h"] = state
    return y


def an_item_by_update(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.st.get("h"))
    self.st.update(h=state)
    return y


def an_object(self: Any, x: Tensor) -> Tensor:
    self.cache = self.cache or State()
    y, state = self.run(x, self.cache.h)
    self.cache = State(state)
    return y


def numbers(self: Any, x: Tensor) -> Tensor:
    count, heat = self.h or (0, 1.0)
    self.h = (count + 1, heat * 0.9)
    y, _ = self.run(x * heat)
    return y


def sometimes(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.h)
    self.h = state if self.training else None
    return y


def a_constant(self: Any, x: Tensor) -> Tensor:
    self.h = self.h or (2.0, torch.ones(1))
    return self.run(x * self.h[1] * self.h[0])[0]


def in_a_lambda(self: Any, x: Tensor) -> Tensor:
    y, self.h = (lambda: self.run(x, self.h))()
    return y


def notes(self: Any, x: Tensor) -> Tensor:
    y, self.h = self.run(x)
    return y


def a_cache_of_weights(self: Any, x: Tensor) -> Tensor:
    self.cache = {"norm": self.head.weight.detach().norm()}
    return self.run(x)[0] / self.cache["norm"]


def a_cache_of_weights_that_is_asked_for(self: Any, x: Tensor) -> Tensor:
    if self.cache is None or self.training:
        self.cache = self.head.weight.detach().norm()
    return self.run(x)[0] / self.cache


def a_cache_by_length(self: Any, x: Tensor) -> Tensor:
    if x.shape[1] not in self.st:
        self.st = {x.shape[1]: (torch.ones(1), torch.zeros(x.shape[1]))}
    return self.run(x * self.st[x.shape[1]][0])[0]


def a_cache_that_grows(self: Any, x: Tensor) -> Tensor:
    length = x.shape[1] + int(2 * torch.rand(()))
    if self.cache is None or self.cache[0].shape[0] != length:
        self.cache = (torch.arange(length * 1.0), torch.ones(length))
    return self.run(x)[0]


def a_log(self: Any, x: Tensor) -> Tensor:
    y, _ = self.run(x)
    if self.cache is None:
        self.cache = {}
    self.cache["mean"] = y.mean().item()
    self.cache["last"] = y.detach()
    self.st.setdefault("means", []).append(y.mean().item())
    return y


def a_log_that_is_taken(self: Any, x: Tensor) -> Tensor:
    taken = self.cache
    self.cache = {}
    y, _ = self.run(x)
    note(self, y)
    return y + 0.0 * (taken is None)


def note(model: Any, y: Tensor) -> None:
    model.cache["mean"] = y.mean().item()


def by_forward(forward: Callable[..., Tensor]) -> Any:
    """Return what makes model and options where ``forward`` does it."""
    kind = type("Own", (Net,), {"forward": forward})
    return lambda: (kind(), {"loss_fn": nn.functional.mse_loss})


class Outer(nn.Module):
    """Carries the state of a part, on that part."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()

    def forward(self, x: Tensor) -> Tensor:
        y, self.inner.h = self.inner.run(x, self.inner.h)
        return y


class OuterOfSeveral(nn.Module):
    """Carries that of a part that it has by its index."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: Any = nn.ModuleList([Net()])

    def forward(self, x: Tensor) -> Tensor:
        y, self.parts[0].h = self.parts[0].run(x, self.parts[0].h)
        return y


class Quiet(Net):
    """Keeps its last output."""

    def run(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        out, state = super().run(x, state)
        self.h = out.detach()
        return out, state


class Step:
    def __init__(self) -> None:
        self.h: Any = None

    def __call__(self, model: Any, batch: Any) -> Tensor:
        y, self.h = model.run(batch[0], self.h)
        return nn.functional.mse_loss(y, batch[1])


class StepModule(nn.Module):
    def forward(self, model: Any, batch: Any) -> Tensor:
        y, model.h = model.run(batch[0], model.h)
        return nn.functional.mse_loss(y, batch[1])


def on_the_model(model: Any, batch: Any) -> Tensor:
    y, model.h = model.run(batch[0], model.h)
    return nn.functional.mse_loss(y, batch[1])


def by_getattr(model: Any, batch: Any) -> Tensor:
    y, model.late = model.run(batch[0], getattr(model, "late", None))
    return nn.functional.mse_loss(y, batch[1])


def on_one_of_torchs(model: Any, batch: Any) -> Tensor:
    y, h = model["cell"](batch[0], getattr(model, "h", None))
    model.h = h.detach()
    return nn.functional.mse_loss(model["head"](y[:, -1]), batch[1])


def a_variable_of_that_name(model: Any, batch: Any) -> Tensor:
    h = batch[0]
    h = h * 1.0
    y, _ = model.run((lambda: h)())
    return nn.functional.mse_loss(y, batch[1])


def in_a_closure() -> Any:
    kept: dict[str, Any] = {}

    def step(model: Any, batch: Any) -> Tensor:
        y, state = model.run(batch[0], kept.get("h"))
        kept["h"] = state
        return nn.functional.mse_loss(y, batch[1])

    return step


def of_torchs() -> nn.Module:
    return nn.ModuleDict(
        {"cell": nn.GRU(3, 2, batch_first=True), "head": nn.Linear(2, 3)}
    )


FORWARDS = {
    True: (
        *(a_tuple, a_list, a_named_tuple, a_mapping, an_item, an_item_by_get),
        *(an_item_by_pop, an_item_by_update, an_object, numbers, sometimes),
        in_a_lambda,
    ),
    False: (
        *(a_constant, notes, a_cache_of_weights, a_cache_of_weights_that_is_asked_for),
        *(a_cache_by_length, a_cache_that_grows, a_log, a_log_that_is_taken),
    ),
}
STEPS: dict[str, tuple[Any, bool]] = {
    "a tuple of a step object": (lambda: (Net(), {"step_fn": Step()}), True),
    "on the model": (lambda: (Net(), {"step_fn": on_the_model}), True),
    "on the model by getattr": (lambda: (Net(), {"step_fn": by_getattr}), True),
    "on the model by a module": (lambda: (Net(), {"step_fn": StepModule()}), True),
    "on one of torch's": (lambda: (of_torchs(), {"step_fn": on_one_of_torchs}), True),
    "in a closure": (lambda: (Net(), {"step_fn": in_a_closure()}), True),
    "on a part": (lambda: (Outer(), {"loss_fn": nn.functional.mse_loss}), True),
    "on a part by its index": (
        lambda: (OuterOfSeveral(), {"loss_fn": nn.functional.mse_loss}),
        True,
    ),
    "a variable of that name": (
        lambda: (Quiet(), {"step_fn": a_variable_of_that_name}),
        False,
    ),
}
CASES = [
    *(
        pytest.param(by_forward(each), is_carried, id=each.__name__)
        for is_carried, forwards in FORWARDS.items()
        for each in forwards
    ),
    *(pytest.param(*case, id=name) for name, case in STEPS.items()),
]


def trained(make: Any, folder: Path, resume: Path | None = None) -> dict[str, Any]:
    torch.manual_seed(0)
    model, options = make()
    Trainer(
        model,
        BATCHES,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[Saves(folder)],
        num_epochs=4,
        device="cpu",
        seed=0,
        **options,
    ).train(resume=resume)
    return copy.deepcopy(model.state_dict())


def check_is_told(
    make: Any, is_carried: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Check that a run is told of what it carries if a resumed one is another."""
    straight = trained(make, folder)
    assert caplog.text.count(TOLD) == is_carried
    resumed = trained(make, folder / "again", folder / "2.pt")
    is_same = all(torch.equal(each, resumed[name]) for name, each in straight.items())
    assert is_same != is_carried


@pytest.mark.parametrize(("make", "is_carried"), CASES)
def test_r8_a_run_is_told_just_where_a_resumed_one_lacks_what_it_carried(
    make: Any, is_carried: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_is_told(make, is_carried, tmp_path, caplog)


def test_r8_another_tensor_at_the_id_of_the_last_one_is_none_that_moved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Which memory Python takes again depends on what was freed between.
    for number in range(1, 9):
        model = by_forward(last_of_all)()[0]
        Trainer(
            model,
            BATCHES[:1] * number,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=nn.functional.mse_loss,
            callbacks=[Saves(tmp_path)],
            num_epochs=8,
            device="cpu",
        ).train()
    assert TOLD not in caplog.text


def last_of_all(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x)
    self.h = state[1]
    return y
