"""A number or tensor that is moved inside of something else is named as well."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from toy import Moves, Saves

from training import Callback, LearningRateSchedulerCallback, Trainer

X = torch.arange(3.0).view(3, 1)


def train(
    path: Path, model: nn.Module, moves: Any = None, *beside: Callback, **options: Any
) -> None:
    if "step_fn" not in options:
        options.setdefault("loss_fn", nn.functional.mse_loss)
    options.setdefault("optimizer", torch.optim.SGD(model.parameters(), lr=0.01))
    trainer = Trainer(
        model,
        [(X, X)],
        callbacks=[*beside, Moves(moves), Saves(path)],
        num_epochs=5,
        device="cpu",
        **options,
    )
    trainer.train()


class Holds(nn.Linear):
    """Has containers, and moves ``what``."""

    def __init__(self, what: str) -> None:
        super().__init__(1, 1)
        self.what = what
        self.state: dict[str, Any] = {"center": torch.zeros(1), "deep": {"n": 0}}
        self.by_name = {"a": 1.0}
        self.seen, self.losses = [0], [0.0]
        self.cache: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        mean = out.detach().mean(0)
        match self.what:
            case "item":
                self.state["center"] = 0.9 * self.state["center"] + mean
            case "item of an item":
                self.state["deep"]["n"] += 1
            case "variable key":
                for name in self.by_name:
                    self.by_name[name] = self.by_name[name] * 0.9
            case "list":
                self.seen[0] += 1
            case "grows":
                self.losses.append(mean.item())
            case "cache":
                if x.shape not in self.cache:
                    self.cache[x.shape] = torch.ones(1)
                self.state["rows"] = self.cache[x.shape]
        return out - self.state["center"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("item", "model.state.center"),
        ("item of an item", "model.state.deep.n"),
        ("variable key", "model.by_name.a"),
        ("list", "model.seen.0"),
        ("grows", ""),
        ("cache", ""),
        ("rests", ""),
    ],
)
def test_r8_what_a_module_moves_inside_of_something_is_named(
    what: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a.pt", Holds(what))
    assert caplog.text.count("moves numbers") == bool(told)
    assert not told or f"variables: {told};" in caplog.text


KEPT = {"center": torch.zeros(1)}


def steps() -> dict[str, Any]:
    """Return step functions that move something in what they hold, by its place."""
    state, counts, last = {"n": 0.0}, [0], deque([0.0], maxlen=1)
    losses = [0.0]

    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def maps(model: nn.Module, batch: Any) -> Tensor:
        state["n"] += 1
        return loss_of(model, batch) * state["n"]

    def lists(model: nn.Module, batch: Any) -> Tensor:
        counts[0] = counts[0] + 1
        return loss_of(model, batch)

    def globally(model: nn.Module, batch: Any) -> Tensor:
        KEPT["center"] = KEPT["center"] * 0.9 + 0.1
        return loss_of(model, batch) * KEPT["center"].sum()

    def queues(model: nn.Module, batch: Any) -> Tensor:
        loss = loss_of(model, batch)
        last.append(loss.item())
        return loss / (1 + sum(last))

    def itself(model: nn.Module, batch: Any) -> Tensor:
        itself.n = getattr(itself, "n", 0) + 1  # type: ignore[attr-defined]
        return loss_of(model, batch)

    def lists_all(model: nn.Module, batch: Any) -> Tensor:
        loss = loss_of(model, batch)
        losses.append(loss.item())
        return loss

    return {
        "maps.state.n": maps,
        "lists.counts.0": lists,
        "globally.KEPT.center": globally,
        "queues.last.0": queues,
        "itself.n": itself,
        "": lists_all,
    }


@pytest.mark.parametrize("told", list(steps()))
def test_r8_what_a_step_function_moves_inside_of_something_is_named(
    told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a.pt", nn.Linear(1, 1), step_fn=steps()[told])
    assert caplog.text.count("moves numbers") == bool(told)
    assert not told or f"variables: {told};" in caplog.text


def test_r8_what_an_optimizer_moves_inside_of_something_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Counts(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.01)
            self.counts = {"n": 0}

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            self.counts["n"] += 1
            return super().step(closure)

    model = nn.Linear(1, 1)
    train(tmp_path / "a.pt", model, optimizer=Counts(model.parameters()))
    assert "variables: optimizer.counts.n;" in caplog.text


def test_r8_a_number_of_a_module_of_torchs_that_a_callback_moves_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, loss = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1)), nn.HuberLoss()

    def moves() -> None:
        model[1].p += 0.01  # type: ignore[operator, assignment]
        loss.delta += 0.1

    train(tmp_path / "a.pt", model, moves, loss_fn=loss)
    assert "variables: loss.delta, model.1.p;" in caplog.text


class Cools(nn.Linear):
    """Keeps a number beside its weights, and moves it."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.heat = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.heat *= 0.9
        return super().forward(x * self.heat)


class SavesIt(Cools):
    """Has it in its part of any ``state_dict``."""

    def _save_to_state_dict(self, state: Any, prefix: str, keep: bool) -> None:
        super()._save_to_state_dict(state, prefix, keep)
        state[f"{prefix}heat"] = torch.tensor(self.heat)

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        self.heat = float(state.pop(f"{prefix}heat"))
        super()._load_from_state_dict(state, prefix, *more)


class HasItWhole(Cools):
    """Has it in the ``state_dict`` that is asked of itself."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return super().state_dict(*args, **kwargs) | {"heat": torch.tensor(self.heat)}

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        self.heat = float(state["heat"])
        rest = {name: each for name, each in state.items() if name != "heat"}
        return super().load_state_dict(rest, *args, **kwargs)


def hooked(saves: bool) -> nn.Module:
    """Return one with hooks around its ``state_dict``, or with one that only loads."""

    def put(module: Any, state: Any, prefix: str, _: Any) -> None:
        state[f"{prefix}heat"] = torch.tensor(module.heat)

    def take(module: Any, state: Any, prefix: str, *_: Any) -> None:
        module.heat = float(state.pop(f"{prefix}heat", module.heat))

    model = Cools()
    if saves:
        model.register_state_dict_post_hook(put)
    model.register_load_state_dict_pre_hook(take)
    return model


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(SavesIt, False, id="its own methods"),
        pytest.param(lambda: nn.Sequential(SavesIt()), False, id="those of a part"),
        pytest.param(HasItWhole, False, id="those of the whole"),
        pytest.param(lambda: hooked(True), False, id="hooks"),
        pytest.param(lambda: hooked(False), True, id="a hook that only loads"),
        pytest.param(lambda: spectral_norm(Cools()), True, id="hooks of torch"),
        pytest.param(Cools, True, id="nothing"),
    ],
)
def test_r8_a_number_that_a_module_saves_in_a_way_of_its_own_is_not_named(
    make: Any, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a.pt", make())
    assert ("moves numbers" in caplog.text) == told


@pytest.mark.parametrize("is_scheduled", [True, False])
@pytest.mark.parametrize("takes_back", ["before", "after", ""])
def test_r8_a_number_that_an_optimizer_saves_by_hooks_is_not_named(
    takes_back: str,
    is_scheduled: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A schedule has hooks of its own there, which take nothing of others back."""

    class Counts(torch.optim.SGD):
        calls = 0

        def step(self, closure: Any = None) -> Any:
            self.calls += 1
            return super().step()

    def take(optimizer: Any, state: Any) -> Any:
        optimizer.calls = state["calls"]
        return {name: each for name, each in state.items() if name != "calls"}

    model = nn.Linear(1, 1)
    optimizer = Counts(model.parameters(), lr=0.01)
    optimizer.calls = 0
    optimizer.register_state_dict_post_hook(lambda o, state: state | {"calls": o.calls})
    if takes_back == "before":
        optimizer.register_load_state_dict_pre_hook(take)
    elif takes_back == "after":
        optimizer.register_load_state_dict_post_hook(lambda o: None)
    schedules = [LearningRateSchedulerCallback(type="constant")] if is_scheduled else []
    train(tmp_path / "a.pt", model, None, *schedules, optimizer=optimizer)
    assert ("moves numbers" in caplog.text) != bool(takes_back)
