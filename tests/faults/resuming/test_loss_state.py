"""R9: what a loss keeps is part of the run, wherever the function has it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from faults.runs import SavesEverywhere, loader_of
from torch import Tensor, nn
from toy import Regression

from trainbus_evaluation import EvaluationCallback
from training import Callback, CheckpointError, ConfigError, Trainer
from training.checkpoint.compare import first_difference
from training.checkpoint.state import capture


class Learnt(nn.Module):
    """A loss with a learnt scale, a counting buffer and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 0.5))
        self.register_buffer("seen", torch.zeros(()))
        self.dropout = nn.Dropout(0.5)

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        self.seen += len(batch[0])  # type: ignore[misc]
        predicted = model.layers(batch[0])  # type: ignore[operator]
        error = (self.dropout(predicted) * self.scale - batch[1]).square().mean()
        return error + self.scale.square().sum() / self.seen

    def step(self, model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = self(model, batch)
        return loss


def applied(loss: Learnt, model: nn.Module, batch: Any) -> Tensor:
    return loss.step(model, batch)


class Steps:
    """A callable object that has its loss in a list, and a scale beside it."""

    def __init__(self, loss: Learnt) -> None:
        self.parts = [loss]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        return self.parts[0].step(model, batch)


class Whole(nn.Module):
    """A module that holds the model and its loss."""

    def __init__(self, loss: Learnt) -> None:
        super().__init__()
        self.loss = loss
        self.model: nn.Module | None = None

    def step(self, model: nn.Module, batch: Any) -> Tensor:
        self.model = model
        return self.loss.step(model, batch)


def step_of_global(model: nn.Module, batch: Any) -> Tensor:
    return GLOBAL[0].step(model, batch)


def step_of_class(model: nn.Module, batch: Any) -> Tensor:
    return Shared.loss.step(model, batch)


class Shared:
    """Has the loss in an attribute of the class."""

    loss: Learnt


class Outer:
    """Has an object that has the loss behind a property, beside what nobody reads."""

    def __init__(self, loss: Learnt) -> None:
        self.inner = SimpleNamespace(_loss=loss, tape=nn.Linear(1, 1))

    @property
    def loss(self) -> Any:
        return self.inner._loss

    def apply(self, model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = self.loss.step(model, batch)
        return found


def of_class(loss: Learnt) -> Any:
    Shared.loss = loss
    return step_of_class


def of_namespace(loss: Learnt) -> Any:
    args = SimpleNamespace(loss=loss)
    return lambda model, batch: args.loss.step(model, batch)


def of_object(loss: Learnt) -> Any:
    args = SimpleNamespace(outer=Outer(loss))
    return lambda model, batch: args.outer.apply(model, batch)


def of_python_module(loss: Learnt) -> Any:
    own = ModuleType("own")
    own.__file__, own.loss = "own.py", loss  # type: ignore[attr-defined]
    return lambda model, batch: own.loss.step(model, batch)  # type: ignore[attr-defined]


GLOBAL: list[Learnt] = []


def of_global(loss: Learnt) -> Any:
    GLOBAL[:] = [loss]
    return step_of_global


PLACES: dict[str, Callable[[Learnt], Any]] = {
    "a module": lambda loss: loss,
    "a method": lambda loss: loss.step,
    "a partial": lambda loss: functools.partial(applied, loss),
    "a closure": lambda loss: lambda model, batch: loss.step(model, batch),
    "a nested function": lambda loss: (
        lambda model, batch: (lambda: loss.step(model, batch))()
    ),
    "a default": lambda loss: lambda model, batch, own=loss: own.step(model, batch),
    "a callable object": Steps,
    "the method of an object": lambda loss: Steps(loss).__call__,
    "a module around both": lambda loss: Whole(loss).step,
    "a global": of_global,
    "a namespace": of_namespace,
    "an attribute of a class": of_class,
    "an object in a namespace": of_object,
    "a module of Python": of_python_module,
    "a compiled module": lambda loss: torch.compile(loss, backend="eager"),
}


def make(place: str, *callbacks: Any, **options: Any) -> tuple[Trainer, Learnt]:
    model, loss = Regression(dropout=0.5), Learnt()
    step = PLACES[place](loss)
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.05)
    given = {"num_epochs": 2, "seed": 3, "device": "cpu", "step_fn": step}
    trainer = Trainer(
        model,
        loader_of(),
        optimizer=optimizer,
        callbacks=list(callbacks),
        **{**given, **options},
    )
    return trainer, loss


def end_of(trainer: Trainer, loss: Learnt) -> dict[str, Any]:
    ignored = {"requests", "distributions", "plugins"}
    state = {k: v for k, v in capture(trainer).items() if k not in ignored}
    return {**state, "live": dict(loss.state_dict())}


@pytest.mark.parametrize("place", PLACES)
def test_r9_every_boundary_resumes_with_the_state_of_a_loss_that_is_in(
    tmp_path: Path, place: str
) -> None:
    straight, loss = make(place, SavesEverywhere(tmp_path))
    straight.train()
    expected = end_of(straight, loss)
    assert not torch.equal(loss.scale, torch.full((2,), 0.5)), "it learns"
    files = sorted(tmp_path.iterdir())
    assert len(files) == 12
    for path in files if place == "a module" else files[4:5]:
        trainer, other = make(place)
        trainer.load_checkpoint(path)
        trainer.train()
        assert first_difference(end_of(trainer, other), expected) is None, path.name


@pytest.mark.parametrize("lost", ["scale", "seen"])
def test_r9_a_checkpoint_that_lost_it_is_found_out(tmp_path: Path, lost: str) -> None:
    straight, loss = make("a module", SavesEverywhere(tmp_path))
    straight.train()
    state = torch.load(tmp_path / "0-3.pt", weights_only=True)
    state["loss"][lost] = torch.ones_like(state["loss"][lost])
    torch.save(state, tmp_path / "mutant.pt")
    trainer, other = make("a module")
    trainer.load_checkpoint(tmp_path / "mutant.pt")
    trainer.train()
    found = first_difference(end_of(trainer, other), end_of(straight, loss))
    assert found is not None


def test_a_loss_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    trainer, _ = make("a module")
    trainer.save_checkpoint(tmp_path / "a.pt")
    model = Regression()
    plain = Trainer(
        model,
        loader_of(),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.05),
        step_fn=lambda model, batch: model(batch[0], batch[1])["loss"],
        device="cpu",
    )
    with pytest.raises(CheckpointError, match=r"not in the loss: scale, seen"):
        plain.load_checkpoint(tmp_path / "a.pt")
    plain.load_checkpoint(tmp_path / "a.pt", weights_only=True)


def test_a_file_of_an_earlier_release_resumes_and_says_what_it_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, _ = make("a module", SavesEverywhere(tmp_path))
    trainer.train()
    state = torch.load(tmp_path / "0-3.pt", weights_only=True)
    for part in ("loss", "trainable", "in_eval"):
        del state[part]
    del state["optimizer"]["names"]
    groups = state["settings"]["optimizer.groups"]
    state["settings"]["optimizer.groups"] = [len(names) for names in groups]
    torch.save(state, tmp_path / "old.pt")
    steps = []

    class Looks(Callback):
        def on_train_begin(self, trainer: Trainer) -> None:
            steps.append(trainer.optimizer.state[loss.scale]["step"].item())

    old, loss = make("a module", Looks())
    old.load_checkpoint(tmp_path / "old.pt")
    assert "saved nothing of the loss; these start afresh: scale, seen" in caplog.text
    assert torch.equal(loss.scale, torch.full((2,), 0.5))
    old.train()
    assert steps == [3], "by position"


@pytest.mark.parametrize(
    ("group", "told"),
    [
        pytest.param(0, "parameter 4 of group 0, shape (3,)", id="in a group"),
        pytest.param(1, "parameter 0 of group 1, shape (3,)", id="in its own group"),
    ],
)
def test_r9_a_parameter_that_no_checkpoint_would_hold_is_refused_before_a_step(
    group: int, told: str
) -> None:
    model, free = Regression(), nn.Parameter(torch.zeros(3))
    groups: list[Any] = [{"params": list(model.parameters())}]
    if group:
        groups.append({"params": [free]})
    else:
        groups[0]["params"].append(free)
    with pytest.raises(ConfigError, match="belongs neither to the model") as caught:
        Trainer(model, loader_of(), optimizer=torch.optim.SGD(groups), device="cpu")
    assert told in str(caught.value)


def test_a_free_parameter_that_the_step_uses_is_kept(tmp_path: Path) -> None:
    def build() -> tuple[Trainer, nn.Parameter]:
        model, scale = Regression(), nn.Parameter(torch.ones(()))
        optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.1)
        return Trainer(
            model,
            loader_of(),
            optimizer=optimizer,
            step_fn=lambda m, b: m(b[0], b[1])["loss"] * scale + scale.square(),
            device="cpu",
        ), scale

    trainer, scale = build()
    trainer.train()
    trainer.save_checkpoint(tmp_path / "a.pt")
    other, fresh = build()
    other.load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(fresh, scale)


def test_a_loss_is_in_train_mode_in_training_and_in_eval_mode_in_evaluations() -> None:
    modes = []

    class Watched(Learnt):
        def forward(self, model: nn.Module, batch: Any) -> Tensor:
            modes.append(self.training)
            return super().forward(model, batch)

    class Evaluates:
        def evaluate(self, loader: Any) -> dict[str, float]:
            losses = [trainer.compute_loss(batch)[0] for batch in loader_of()]
            return {"val_loss": float(sum(loss.item() for loss in losses))}

    model, loss = Regression(), Watched()
    trainer = Trainer(
        model,
        loader_of(),
        loader_of(),
        optimizer=torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1),
        step_fn=loss,
        evaluator=Evaluates(),
        num_epochs=2,
        loss_per="samples",  # measuring that would call the loss, too
        device="cpu",
    )
    trainer.train()
    before = [False] * 6  # the evaluator is tried out
    assert modes == before + ([True] * 6 + [False] * 6) * 2


@pytest.mark.parametrize("place", PLACES)
def test_the_look_at_first_validation_data_leaves_a_loss_as_it_was(place: str) -> None:
    class Evaluates:
        def evaluate(self, loader: Any) -> dict[str, float]:
            losses = [trainer.compute_loss(batch)[0].item() for batch in loader]
            loss.dropout.eval()
            return {"val_loss": sum(losses)}

    ends = []
    for sanity_batches in (0, 3):
        callback = EvaluationCallback(
            Evaluates(), every_n_epochs=2, sanity_batches=sanity_batches
        )
        validation = {"val_dataloader": loader_of(), "loss_per": "samples"}
        trainer, loss = make(place, callback, **validation)
        trainer.train()
        ends.append(end_of(trainer, loss))
    assert first_difference(*ends) is None


def test_a_function_of_a_library_is_not_read_for_modules() -> None:
    model = Regression()
    trainer = Trainer(
        model.layers,
        loader_of(),
        loss_fn=nn.functional.mse_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
    )
    assert trainer.criterion.state_dict() == {}
