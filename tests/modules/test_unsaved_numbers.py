"""A number that a module counts in Python and no checkpoint holds is named."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import Saves

from training import Callback, Trainer

TOLD = "attributes or variables: model.inner.heat;"


class Inner(nn.Linear):
    """Keeps a number beside its weights, and does ``what`` with it in each pass."""

    def __init__(self, what: str) -> None:
        super().__init__(1, 1)
        self.what, self.heat = what, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "cools":
            self.heat *= 0.9
        elif self.what == "cools by numpy":
            self.heat = self.heat * np.float32(0.9)
        elif self.what == "is filled once":
            self.heat = 2.0
        elif self.what == "is not a number":
            self.odd = math.nan
        elif self.what == "cools among many":
            self.heat *= 0.9
            vars(self).update({f"option{number}": number for number in range(200)})
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
        pytest.param(Inner("cools by numpy"), 1, id="a number of numpy's"),
        pytest.param(Inner("cools among many"), 1, id="many attributes"),
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
    assert "attributes or variables: model.inner.late;" in caplog.text


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
    assert caplog.text.count("attributes or variables: optimizer.calls;") == count


STATE: dict[str, Tensor] = {}
CENTER = torch.zeros(1)
CALLS = 0


class Own:
    """What a step function has beside it; ``what`` says what it does there."""

    def __init__(self, what: str) -> None:
        self.what, self.heat = what, 1.0
        self.center = torch.zeros(1)
        self.held: dict[str, Any] = {"center": torch.zeros(1)}
        self.bank = Inner("rests").requires_grad_(False)

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(model(x) * self.heat + self.center, y)
        with torch.no_grad():
            match self.what:
                case "cools":
                    self.heat *= 0.9
                case "adds":
                    self.center += 0.1
                case "replaces":
                    self.center = self.center * 0.9 + 0.1
                case "adds in a mapping":
                    self.held["center"] += 0.1
                case "fills once":
                    self.heat, self.center = 2.0, torch.ones(1)
                    self.held["center"] = self.center
                case "counts in a module":
                    self.bank.calls = getattr(self.bank, "calls", 0) + 1
                case "adds to a global":
                    CENTER.add_(0.1)
                case "sets a global":
                    set_calls()
                case "adds to its bank":
                    self.bank.bias.add_(0.1)
        return loss


def set_calls() -> None:
    global CALLS
    CALLS += 1


@pytest.mark.parametrize(
    ("what", "told"),
    [
        pytest.param("cools", "Own.heat", id="a number"),
        pytest.param("adds", "Own.center", id="a tensor in place"),
        pytest.param("replaces", "Own.center", id="another tensor each time"),
        pytest.param("adds in a mapping", "Own.held.center", id="one in a mapping"),
        pytest.param("adds to a global", "Own.CENTER", id="a global tensor"),
        pytest.param("sets a global", "Own.CALLS", id="a global number"),
        pytest.param("counts in a module", "loss.bank.calls", id="a module's number"),
        pytest.param("fills once", "", id="caches"),
        pytest.param("adds to its bank", "", id="what is saved"),
        pytest.param("rests", "", id="it rests"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda own: own, lambda own: lambda *a: own(*a)])
def test_r8_what_a_step_function_moves_and_no_checkpoint_holds_is_named(
    wrap: Any, what: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = nn.Linear(1, 1), torch.arange(3.0).view(3, 1)
    Trainer(
        model,
        [(x, x)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        step_fn=wrap(Own(what)),
        callbacks=[Saves(tmp_path / "a.pt")],
        num_epochs=4,
        device="cpu",
    ).train()
    assert caplog.text.count("moves numbers") == bool(told)
    assert told.rpartition(".")[2] in caplog.text


def test_r8_a_number_of_a_plugin_that_a_step_function_reads_is_its_own_affair(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Heats(Callback):
        def __init__(self) -> None:
            self.heat = 1.0

        def on_epoch_begin(self) -> None:
            self.heat *= 0.9

        def state_dict(self) -> dict[str, Any]:
            return {"heat": self.heat}

        def load_state_dict(self, state: Any) -> None:
            self.heat = state["heat"]

    def step(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]) * heats.heat, batch[1])

    model, x, heats = nn.Linear(1, 1), torch.arange(3.0).view(3, 1), Heats()
    Trainer(
        model,
        [(x, x)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        step_fn=step,
        callbacks=[heats, Saves(tmp_path / "a.pt")],
        num_epochs=4,
        device="cpu",
    ).train()
    assert "moves numbers" not in caplog.text


class Slow(torch.optim.SGD):
    """Keeps slow weights in a list, and what ``name`` says as an attribute."""

    def __init__(self, parameters: Any, inner: Any = None) -> None:
        super().__init__(parameters, lr=0.1)
        self.own = list(self.param_groups[0]["params"])
        self.slow = [each.detach().clone() for each in self.own]
        self.inner = inner

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step()
        for slow, fast in zip(self.slow, self.own, strict=True):
            slow.lerp_(fast, 0.5)
            fast.copy_(slow)


class KeepsAll(Slow):
    """Has it all in a ``state_dict`` of its own."""

    def state_dict(self) -> Any:
        return super().state_dict() | {"slow": self.slow}


def test_r8_tensors_that_an_optimizer_keeps_in_a_list_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(nn.Linear(1, 1), tmp_path / "a.pt", Slow)
    assert "variables: optimizer.slow.0, optimizer.slow.1;" in caplog.text


@pytest.mark.parametrize(
    ("kind", "count"), [pytest.param(Slow, 1), pytest.param(KeepsAll, 0)]
)
@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(torch.Generator(), id="a generator"),
        pytest.param(
            torch.optim.SGD([torch.zeros(1, requires_grad=True)]), id="an optimizer"
        ),
    ],
)
def test_r8_an_optimizer_or_generator_inside_of_the_optimizer_is_named_at_once(
    kind: Any,
    count: int,
    inner: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(nn.Linear(1, 1), tmp_path / "a.pt", partial(kind, inner=inner))
    assert caplog.text.count(f"the {kind.__name__} keeps inner, whose state") == count


class Centers(nn.Linear):
    """Keeps a mean of its outputs and a mask of them, as plain tensors."""

    def __init__(self, what: str) -> None:
        super().__init__(1, 1)
        self.what = what
        self.center, self.mask = torch.zeros(1), torch.zeros(3, 1)
        self.queue = torch.zeros(1000)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.what == "a mean":
            self.center = self.center * 0.9 + 0.1 * out.detach().mean(0)
        elif self.what == "a mask":
            self.mask = torch.ones_like(x)
        elif self.what == "one of many":
            self.queue[self.queue.count_nonzero() + 1] = 1.0
        elif self.what == "by data":
            self.center.data += 1.0
        return out - self.center + self.mask


@pytest.mark.parametrize(
    ("what", "told"),
    [
        pytest.param("a mean", "center", id="another one each time"),
        pytest.param("one of many", "queue", id="in place, few of many numbers"),
        pytest.param("by data", "center", id="in place, with no version counted"),
        pytest.param("a mask", "", id="another one of the same numbers"),
    ],
)
def test_r8_a_plain_tensor_that_a_module_moves_is_named(
    what: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(Centers(what), tmp_path / "a.pt")
    assert caplog.text.count("moves numbers") == bool(told)
    assert not told or f"variables: model.inner.{told};" in caplog.text


@pytest.mark.parametrize("is_saved", [True, False])
def test_r8_a_metric_in_a_module_is_named_unless_it_is_saved(
    is_saved: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")

    class Weighs(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.mean = torchmetrics.MeanMetric()
            self.mean.persistent(is_saved)

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            self.mean.update(out.detach())
            mean: Tensor = self.mean.compute()
            return out / (1 + mean.square())

    trained(Weighs(), tmp_path / "a.pt")
    assert ("persistent(True) of a metric" in caplog.text) == (not is_saved)


def test_r8_a_number_that_begins_to_move_later_is_named_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Later(nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.calls, self.heat = 0, 1.0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 4:
                self.heat *= 0.9
            return super().forward(x) * self.heat

    model, x = Later(), torch.arange(3.0).view(3, 1)
    Trainer(
        model,
        [(x, x)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        loss_fn=nn.functional.mse_loss,
        callbacks=[Saves(tmp_path / "a.pt")],
        num_epochs=9,
        device="cpu",
    ).train()
    assert caplog.text.count("variables: model.calls;") == 1
    assert caplog.text.count("variables: model.heat;") == 1
