"""Of what a run carries from batch to batch it is told where a resumed one lacks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
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
    """Measures where ``evaluates``, and then saves, at the end of ``every`` epochs."""

    def __init__(self, folder: Path, evaluates: bool = False, every: int = 1) -> None:
        self.folder, self.evaluates, self.every = folder, evaluates, every

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"size": trainer.model(X).norm().item()} if self.evaluates else {}

    def on_epoch_end(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every == 0:
            trainer.save_checkpoint(self.folder / f"{trainer.epoch}.pt")


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
        self.scale = 1.0
        self.register_buffer("kept", torch.zeros(2, 4, 2))

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


def a_cache_by_length(self: Any, x: Tensor) -> Tensor:
    if x.shape[1] not in self.st:
        self.st = {x.shape[1]: (torch.ones(1), torch.zeros(x.shape[1]))}
    return self.run(x * self.st[x.shape[1]][0])[0]


def a_cache_that_grows(self: Any, x: Tensor) -> Tensor:
    length = x.shape[1] + int(2 * torch.rand(()))
    if self.cache is None or self.cache[0].shape[0] != length:
        self.cache = (torch.arange(length * 1.0), torch.ones(length))
    return self.run(x)[0]


def a_loss_with_its_graph(self: Any, x: Tensor) -> Tensor:
    y, self.h = self.cell(x)
    out: Tensor = self.head(y[:, -1])
    self.cache = out.square().mean()
    return out + 0.0 * self.cache


def a_view_of_a_buffer(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.kept.clone().split(1))
    self.kept.copy_(torch.cat(state))
    self.h = self.kept[:1]
    return y


def a_gradient(self: Any, x: Tensor) -> Tensor:
    self.h = self.head.weight.grad
    return self.run(x)[0]


def notes(self: Any, x: Tensor) -> Tensor:
    y, self.h = self.run(x)
    return y


def a_cache_of_weights(self: Any, x: Tensor) -> Tensor:
    self.cache = {"norm": self.head.weight.detach().norm()}
    return self.run(x)[0] / self.cache["norm"]


def a_log(self: Any, x: Tensor) -> Tensor:
    y, _ = self.run(x)
    self.cache = {"mean": y.mean().item(), "last": y.detach()}
    return y


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


def on_one_of_torchs(model: Any, batch: Any) -> Tensor:
    y, h = model["cell"](batch[0], getattr(model, "h", None))
    model.h = h.detach()
    return nn.functional.mse_loss(model["head"](y[:, -1]), batch[1])


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


LOSS = {"loss_fn": nn.functional.mse_loss}
CARRIED: dict[str, Any] = {
    **{
        each.__name__: by_forward(each)
        for each in (a_tuple, a_list, a_named_tuple, a_mapping, an_item, numbers)
    },
    "a tuple of a step object": lambda: (Net(), {"step_fn": Step()}),
    "on the model": lambda: (Net(), {"step_fn": on_the_model}),
    "on the model by a module": lambda: (Net(), {"step_fn": StepModule()}),
    "on one of torch's": lambda: (of_torchs(), {"step_fn": on_one_of_torchs}),
    "in a closure": lambda: (Net(), {"step_fn": in_a_closure()}),
    "on a part": lambda: (Outer(), LOSS),
}
RESUMED: dict[str, Any] = {
    each.__name__: by_forward(each)
    for each in (
        *(a_constant, a_cache_by_length, a_cache_that_grows, a_loss_with_its_graph),
        *(a_view_of_a_buffer, a_gradient),
    )
}
ONLY_KEPT = {
    each.__name__: by_forward(each) for each in (notes, a_cache_of_weights, a_log)
}


def trained(
    make: Any,
    folder: Path,
    resume: Path | None = None,
    evaluates: bool = False,
    every: int = 1,
) -> dict[str, Any]:
    torch.manual_seed(0)
    model, options = make()
    Trainer(
        model,
        BATCHES,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[Saves(folder, evaluates, every)],
        num_epochs=4 * every,
        device="cpu",
        seed=0,
        **options,
    ).train(resume=resume)
    return copy.deepcopy(model.state_dict())


def is_resumed(make: Any, folder: Path) -> bool:
    """Whether a run that goes on from the second epoch ends as one without a break."""
    straight = trained(make, folder)
    resumed = trained(make, folder / "again", folder / "2.pt")
    return all(torch.equal(each, resumed[name]) for name, each in straight.items())


@pytest.mark.parametrize("make", CARRIED.values(), ids=CARRIED)
def test_r8_what_a_run_carries_from_batch_to_batch_is_named(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not is_resumed(make, tmp_path)
    assert caplog.text.count(TOLD) == 1  # the resumed one has no two saves that differ


@pytest.mark.parametrize("make", RESUMED.values(), ids=RESUMED)
def test_r8_what_is_saved_or_filled_again_or_has_a_graph_is_not_named(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_resumed(make, tmp_path)
    assert TOLD not in caplog.text


@pytest.mark.parametrize("make", ONLY_KEPT.values(), ids=ONLY_KEPT)
def test_r8_what_is_kept_without_a_graph_is_named_whether_or_not_it_is_read(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_resumed(make, tmp_path)
    assert "what nothing in training reads needs nothing" in caplog.text


def carried_in_training(self: Any, x: Tensor) -> Tensor:
    y, state = self.run(x, self.h)
    self.h = state if self.training else None
    return y


def sets_it_by_its_mode(self: Any, x: Tensor) -> Tensor:
    self.scale = 1.0 if self.training else 0.5
    return self.run(x * self.scale)[0]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("forward", "count"),
    [
        pytest.param(carried_in_training, 1, id="a state that it resets"),
        pytest.param(a_loss_with_its_graph, 0, id="what it computes without a graph"),
        pytest.param(sets_it_by_its_mode, 0, id="what it sets by its mode"),
    ],
)
def test_r8_a_save_after_an_evaluation_goes_by_what_training_had_left(
    forward: Any,
    count: int,
    every: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(by_forward(forward), tmp_path, evaluates=True, every=every)
    assert caplog.text.count(TOLD) == count


class CountsInEpoch(Callback):
    """Counts the steps of an epoch on its model; saves at each fifth step of the run.

    Looked at where an epoch of four ends, as it does before each save, all are four.
    """

    def __init__(self, path: Path, measures_first: bool) -> None:
        self.path, self.measures_first = path, measures_first

    def on_train_begin(self, trainer: Trainer) -> None:
        if self.measures_first:
            trainer.request_evaluation("to begin with")

    def on_epoch_begin(self, trainer: Trainer) -> None:
        trainer.model.count = 0

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.model.count += 1
        if trainer.step % 5 == 0:
            trainer.request_checkpoint("now")

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if reason == "now":
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("measures_first", [False, True])
def test_r8_what_begins_anew_in_each_epoch_is_named_by_saves_inside_of_epochs(
    measures_first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Linear(3, 3)
    vars(model)["count"] = 0
    Trainer(
        model,
        [torch.ones(1, 3)] * 4,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch).square().mean(),
        callbacks=[CountsInEpoch(tmp_path / "a.pt", measures_first)],
        max_steps=10,
        device="cpu",
    ).train()
    assert "variables: model.count;" in caplog.text


class Shown:
    """Counts who looks into it."""

    num_looks = 0

    @property
    def __dict__(self) -> Any:
        Shown.num_looks += 1
        return {}


@pytest.mark.parametrize("evaluates", [True, False])
def test_r8_a_run_that_saves_nothing_is_looked_at_as_often_however_long_it_is(
    evaluates: bool, tmp_path: Path
) -> None:
    def num_looks(num_epochs: int) -> int:
        before, model = Shown.num_looks, nn.Linear(3, 3)
        vars(model)["shown"] = Shown()
        Trainer(
            model,
            BATCHES,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step_fn=lambda model, batch: model(batch[0]).square().mean(),
            callbacks=[Saves(tmp_path, evaluates, every=num_epochs + 1)],
            num_epochs=num_epochs,
            device="cpu",
        ).train()
        return Shown.num_looks - before

    assert num_looks(1) == num_looks(7) > 0
