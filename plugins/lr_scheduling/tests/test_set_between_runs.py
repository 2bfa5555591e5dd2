"""A rate that a person sets between two runs is never passed over in silence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    ReduceLROnPlateau,
    StepLR,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, ConfigError, Trainer

#: Each with what it makes of a full rate of 1 in four steps.
TYPES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({"type": "constant"}, [1.0, 1.0, 1.0, 1.0]),
    "linear": ({"type": "linear"}, [1.0, 0.75, 0.5, 0.25]),
    "a warmup": ({"type": "constant", "warmup": 1}, [0.5, 1.0, 1.0, 1.0]),
    "by epochs": ({"type": "linear", "interval": "epoch"}, [1.0, 1.0, 0.5, 0.5]),
    "plateau": (
        {"type": "plateau", "monitor": "train_loss", "patience": 0, "threshold": 9.0},
        [1.0, 1.0, 0.1, 0.1],
    ),
}
OBJECTS: dict[str, Any] = {
    "step": lambda optimizer: StepLR(optimizer, 1, gamma=0.5),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=2),
    "plateau": lambda optimizer: ReduceLROnPlateau(optimizer, patience=0),
}


class Rates(Callback):
    """Notes the rates of every update, and fails at step ``end``; saves before."""

    before = ("lr_scheduling",)

    def __init__(self, path: Path | None = None) -> None:
        self.used: list[list[float]] = []
        self.path, self.end = path, 0

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 1.0}

    def on_before_step(self, trainer: Trainer) -> None:
        groups = trainer.optimizer.param_groups
        self.used.append([float(group["lr"]) for group in groups])
        if len(self.used) == self.end:
            raise KeyboardInterrupt

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self.path is not None and trainer.epoch == 1:
            trainer.save_checkpoint(self.path)


def optimizer_of(*rates: float, as_tensor: bool = False) -> torch.optim.Optimizer:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in rates))
    groups = [
        {"params": [*layer.parameters()], "lr": torch.tensor(r) if as_tensor else r}
        for layer, r in zip(model, rates, strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    optimizer.model = model  # type: ignore[attr-defined]
    return optimizer


def trainer_of(optimizer: Any, schedule: Callback, rates: Rates) -> Trainer:
    return Trainer(
        optimizer.model,
        [(torch.ones(1, 1),)] * 2,
        optimizer=optimizer,
        num_epochs=2,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean() * 0.0,
        callbacks=[schedule, rates],
        seed=0,
    )


def used_by(trainer: Trainer, rates: Rates) -> list[list[float]]:
    """Train, and return the rates of each group by update."""
    rates.used.clear()
    trainer.train()
    return [list(each) for each in zip(*rates.used, strict=True)]


def typed(kind: str, optimizer: Any) -> tuple[Trainer, Rates]:
    schedule = LearningRateSchedulerCallback(**TYPES[kind][0])
    return trainer_of(optimizer, schedule, rates := Rates()), rates


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("is_another_trainer", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_rate_that_is_set_between_two_runs_is_the_full_one(
    kind: str, is_another_trainer: bool, as_tensor: bool
) -> None:
    optimizer, shape = optimizer_of(1.0, 0.2, as_tensor=as_tensor), TYPES[kind][1]
    trainer, rates = typed(kind, optimizer)
    trainer.train()
    if as_tensor:
        optimizer.param_groups[0]["lr"].fill_(0.04)
    else:
        optimizer.param_groups[0]["lr"] = 0.04
    if is_another_trainer:
        trainer, rates = typed(kind, optimizer)
    for _ in range(2):  # set once, it is the full one of all that follow
        first, second = used_by(trainer, rates)
        assert first == pytest.approx([0.04 * height for height in shape])
        assert second == pytest.approx([0.2 * height for height in shape])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("end", [0, 3], ids=["ended", "interrupted"])
def test_a_rate_that_nobody_sets_is_the_full_one_again(kind: str, end: int) -> None:
    trainer, rates = typed(kind, optimizer_of(1.0))
    rates.end = end
    if end:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        rates.end = 0
    for _ in range(2):
        assert used_by(trainer, rates) == [pytest.approx(TYPES[kind][1])]
    again = typed(kind, trainer.optimizer)
    assert used_by(*again) == [pytest.approx(TYPES[kind][1])]


def test_an_interval_that_is_set_before_a_run_is_what_advances_it() -> None:
    schedule = LearningRateSchedulerCallback(type="linear")
    optimizer = optimizer_of(1.0)
    trainer = trainer_of(optimizer, schedule, rates := Rates())
    schedule.interval = "epoch"
    by_epochs = LearningRateSchedulerCallback(type="linear", interval="epoch")
    others = trainer_of(optimizer_of(1.0), by_epochs, other := Rates())
    assert used_by(trainer, rates) == used_by(others, other)


class Moves(Callback):
    """Declares that it moves rates."""

    name = "moves"
    mutates = ("optimizer",)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_run_without_a_schedule_at_the_rate_0_of_an_ended_one_says_so(
    as_tensor: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = optimizer_of(1.0, 0.2, as_tensor=as_tensor)
    schedule = LearningRateSchedulerCallback(type="linear")
    ended = trainer_of(optimizer, schedule, Rates())
    ended.train()
    ended.train()
    trainer_of(optimizer, Moves(), Rates()).train()
    told = "the rate of every group of the optimizer is 0"
    assert told not in caplog.text
    plain = trainer_of(optimizer, Callback(), rates := Rates())
    assert used_by(plain, rates) == [[0.0] * 4] * 2
    assert caplog.text.count(told) == 1
    assert "whose full rate was 1 (group['initial_lr'])" in caplog.text
    optimizer.param_groups[1]["lr"] = 0.1
    assert used_by(plain, rates) == [[0.0] * 4, [0.1] * 4]
    assert caplog.text.count(told) == 1


def test_of_a_rate_0_that_no_schedule_left_or_a_hook_moves_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer_of(optimizer_of(0.0), Callback(), Rates()).train()
    optimizer = optimizer_of(1.0)
    warmup = LambdaLR(optimizer, lambda step: step / 4)
    optimizer.register_step_post_hook(lambda *_: warmup.step())
    trainer_of(optimizer, Callback(), Rates()).train()
    assert optimizer.param_groups[0]["lr"] == 1.0

    class Steps(Callback):
        """Steps a schedule of its own that begins at 0, and says so nowhere."""

        def on_step_end(self) -> None:
            own.step()

    own = LambdaLR(optimizer := optimizer_of(1.0), lambda step: step / 4)
    trainer_of(optimizer, Steps(), Rates()).train()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert "the rate of every group" not in caplog.text


class Halves(Callback):
    """Moves the rates inside of a run, over what the schedule has set."""

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.optimizer.param_groups[0]["lr"] *= 0.5


@pytest.mark.parametrize("schedule", [{"type": "linear"}, None], ids=["type", "object"])
def test_a_rate_that_a_plugin_moves_in_a_run_is_set_by_nobody(schedule: Any) -> None:
    optimizer = optimizer_of(1.0)
    plugin = LearningRateSchedulerCallback(
        **(schedule or {"scheduler": StepLR(optimizer, 1)})
    )
    trainer = trainer_of(optimizer, plugin, rates := Rates())
    trainer.bus.register(Halves())
    assert used_by(trainer, rates) == used_by(trainer, rates)


def test_rates_of_a_loaded_state_are_set_by_nobody_until_one_is() -> None:
    optimizer = optimizer_of(1.0)
    trainer, rates = typed("linear", optimizer)
    rates.end = 3
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    rates.end, inside = 0, copy.deepcopy(optimizer.state_dict())
    trainer.train()
    optimizer.load_state_dict(inside)
    assert used_by(trainer, rates)[0][0] == 1.0
    optimizer.load_state_dict(inside)
    optimizer.param_groups[0]["lr"] = 0.04
    assert used_by(trainer, rates)[0][0] == 0.04


def test_a_rate_that_a_refused_run_was_given_may_be_set_again() -> None:
    optimizer = optimizer_of(0.1)
    schedule = LearningRateSchedulerCallback(type="linear", min_lr=0.5)
    trainer = trainer_of(optimizer, schedule, rates := Rates())
    with pytest.raises(ConfigError, match=r"min_lr is 0.5, above .* rate of 0.1, "):
        trainer.train()
    optimizer.param_groups[0]["lr"] = 0.9
    assert used_by(trainer, rates) == [pytest.approx([0.9, 0.8, 0.7, 0.6])]


@pytest.mark.parametrize("is_another", [False, True], ids=["same", "another"])
def test_a_run_with_a_rate_so_set_resumes(tmp_path: Path, is_another: bool) -> None:
    def build(optimizer: Any) -> tuple[Trainer, Rates]:
        schedule = LearningRateSchedulerCallback(type="linear")
        rates = Rates(tmp_path / "a.pt")
        return trainer_of(optimizer, schedule, rates), rates

    trainer, rates = build(optimizer_of(1.0))
    trainer.train()
    trainer.optimizer.param_groups[0]["lr"] = 0.04
    whole = used_by(trainer, rates)[0]
    if is_another:
        trainer, rates = build(optimizer_of(1.0))
        trainer.optimizer.param_groups[0]["lr"] = 0.04
    trainer.load_checkpoint(tmp_path / "a.pt", allow_changes=["optimizer.lr"])
    assert used_by(trainer, rates) == [whole[2:]]


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("is_first", [False, True], ids=["between", "before"])
def test_beside_a_scheduler_object_it_is_refused_until_one_is_built_for_it(
    kind: str, is_first: bool
) -> None:
    optimizer = optimizer_of(1.0)

    def build() -> tuple[Trainer, Rates]:
        schedule = LearningRateSchedulerCallback(OBJECTS[kind](optimizer))
        schedule.interval = "epoch"
        return trainer_of(optimizer, schedule, rates := Rates()), rates

    trainer, rates = build()
    if not is_first:
        assert used_by(trainer, rates) == used_by(trainer, rates)
    group = optimizer.param_groups[0]
    was, group["lr"] = group["lr"], 0.04
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(ConfigError, match=r"group 0 was set to 0\.04, but the .*"):
            trainer.train()
    group["lr"] = was
    assert used_by(trainer, rates)[0][0] == 1.0
    group["lr"] = group["initial_lr"] = 0.04
    trainer, rates = build()
    for _ in range(2):
        assert used_by(trainer, rates)[0][0] == 0.04


class Wrapped(torch.optim.Optimizer):
    """One around another, without the parts that torch's own ``__init__`` gives it."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.optimizer, self.model = inner, inner.model  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()


def test_an_optimizer_around_another_is_scheduled_run_after_run() -> None:
    trainer, rates = typed("linear", Wrapped(optimizer_of(1.0)))
    expected = [TYPES["linear"][1]]
    assert used_by(trainer, rates) == used_by(trainer, rates) == expected


def test_a_group_without_parameters_keeps_its_rate() -> None:
    optimizer = optimizer_of(1.0)
    for _ in range(2):
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": []})
    trainer, rates = typed("linear", optimizer)
    first = used_by(trainer, rates)
    assert used_by(trainer, rates) == first
