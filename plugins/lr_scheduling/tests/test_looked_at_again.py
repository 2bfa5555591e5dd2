"""A scheduler object is looked at in each run, not only in its first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import ConfigError

from .fakes import begin, fake_trainer, make_optimizer, run

Build = Any


class Own:
    """A scheduler of one's own, which does not say whose rates it moves."""

    def __init__(self, optimizer: Any) -> None:
        self._groups = lambda: optimizer.param_groups
        self.number = 0

    def step(self) -> None:
        self.number += 1
        for group in self._groups():
            group["lr"] *= 0.5

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def one_cycle(optimizer: Any) -> OneCycleLR:
    return OneCycleLR(optimizer, 1.0, total_steps=6, cycle_momentum=False)


def sequence(optimizer: Any) -> SequentialLR:
    parts = [ConstantLR(optimizer, 0.5, 1), ExponentialLR(optimizer, 0.5)]
    return SequentialLR(optimizer, parts, milestones=[1])


#: Those that multiply the rate of each group, by step of a run.
FOLLOWING: dict[str, Build] = {
    "exponential": lambda optimizer: ExponentialLR(optimizer, 0.5),
    "step": lambda optimizer: StepLR(optimizer, 1, 0.5),
    "one's own": Own,
}
FIXED: dict[str, Build] = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda at: 0.5**at),
    "product": lambda optimizer: MultiplicativeLR(optimizer, lambda at: 0.5),
    "cyclic": lambda optimizer: CyclicLR(optimizer, 0.1, 1.0, cycle_momentum=False),
    "restarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 2),
    "one cycle": one_cycle,
    "swa": lambda optimizer: SWALR(optimizer, 0.05, 3),
    "sequence": sequence,
}


def add_group(optimizer: SGD, rate: float = 0.1) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [parameter], "lr": rate})


def trained(callback: Any, trainer: Any, number: int = 3) -> list[list[float]]:
    """Let a run of some updates pass; return the rates that they used."""
    begin(callback, trainer)
    used = run(callback, trainer, [True] * number)
    callback.on_close()
    return used


def object_of(build: Build, optimizer: Any) -> LearningRateSchedulerCallback:
    return LearningRateSchedulerCallback(build(optimizer), interval="step")


@pytest.mark.parametrize("kind", [*FOLLOWING, *FIXED])
def test_in_a_run_of_another_optimizer_it_is_refused_again(kind: str) -> None:
    optimizer, other = make_optimizer(1.0), make_optimizer(1.0)
    callback = object_of({**FOLLOWING, **FIXED}[kind], optimizer)
    trainer = fake_trainer(optimizer, num_epochs=1, steps_per_epoch=6)
    trained(callback, trainer)
    was = [dict(group) for group in optimizer.param_groups]
    trainer.optimizer = other
    with pytest.raises(ConfigError, match=" belongs to another optimizer than the run"):
        callback.on_setup(trainer)
    callback.on_close()
    assert [dict(group) for group in optimizer.param_groups] == was
    trainer.optimizer = optimizer
    trained(callback, trainer)


def test_in_a_longer_run_one_that_would_end_inside_is_refused() -> None:
    optimizer = make_optimizer(1.0)
    callback = object_of(one_cycle, optimizer)
    first = trained(callback, fake_trainer(optimizer, 1, 6), 6)
    with pytest.raises(
        ConfigError, match=r"is 6 advances long, but .* has 12; make it"
    ):
        callback.on_setup(fake_trainer(optimizer, 2, 6))
    callback.on_close()
    assert trained(callback, fake_trainer(optimizer, 1, 6), 6) == first


def test_in_a_later_run_it_is_looked_at_as_it_was_when_fresh(caplog: Any) -> None:
    optimizer = make_optimizer(1.0)
    callback = object_of(lambda o: CosineAnnealingLR(o, T_max=6), optimizer)
    told = []
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            trained(callback, fake_trainer(optimizer, 1, 6), 6)
        told.append(caplog.messages)
    assert "begins at 1, is 1 at most, ends at 0.0669873" in told[0][0]
    assert told[1] == told[0]


@pytest.mark.parametrize("kind", FIXED)
def test_a_group_that_it_cannot_follow_is_refused(kind: str) -> None:
    optimizer = make_optimizer(1.0)
    callback = object_of(FIXED[kind], optimizer)
    trained(callback, fake_trainer(optimizer, 1, 6))
    add_group(optimizer)
    message = "an optimizer with 1 parameter group and cannot follow the 2 that it has"
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            callback.on_setup(fake_trainer(optimizer, 1, 6))
        callback.on_close()


@pytest.mark.parametrize("kind", FIXED)
def test_a_group_that_joins_inside_of_a_run_is_refused_at_the_next_advance(
    kind: str,
) -> None:
    optimizer = make_optimizer(1.0)
    trainer = fake_trainer(optimizer, 1, 6)
    callback = begin(object_of(FIXED[kind], optimizer), trainer)
    run(callback, trainer, [True])
    add_group(optimizer)
    with pytest.raises(ConfigError, match="1 parameter group and cannot follow the 2"):
        run(callback, trainer, [True])


@pytest.mark.parametrize("kind", FOLLOWING)
@pytest.mark.parametrize("is_inside", [False, True], ids=["between", "inside"])
def test_one_that_multiplies_rates_follows_a_later_group_from_its_own(
    kind: str, is_inside: bool
) -> None:
    optimizer = make_optimizer(1.0)
    callback = object_of(FOLLOWING[kind], optimizer)
    if is_inside:
        trainer = fake_trainer(optimizer, 1, 6)
        begin(callback, trainer)
        add_group(optimizer)
        run(callback, trainer, [True])
        callback.on_close()
    else:
        trained(callback, fake_trainer(optimizer, 1, 6))
        add_group(optimizer)
    for _ in range(2):  # from its full rate, not from where the first run left it
        used = trained(callback, fake_trainer(optimizer, 1, 6))
        assert used == [[1.0, 0.1], [0.5, 0.05], [0.25, 0.025]]


def test_a_later_group_with_the_tensor_of_another_one_s_rate_has_its_full_rate() -> (
    None
):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD(parameters[:1], lr=torch.tensor(1.0))
    callback = object_of(FOLLOWING["exponential"], optimizer)
    trainer = fake_trainer(optimizer, 1, 6)
    begin(callback, trainer)
    run(callback, trainer, [True])
    optimizer.add_param_group({"params": parameters[1:]})
    run(callback, trainer, [True])
    callback.on_close()
    begin(callback, trainer)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [1.0, 1.0]


def test_a_plateau_begins_again_at_the_full_rate_of_a_later_group() -> None:
    optimizer = make_optimizer(1.0)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    callback = LearningRateSchedulerCallback(plateau)
    trained(callback, fake_trainer(optimizer))
    add_group(optimizer)
    for _ in range(2):
        trainer = fake_trainer(optimizer)
        begin(callback, trainer)
        assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]
        for _ in range(2):
            callback.on_metrics(trainer, {"val_loss": 1.0})
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
        callback.on_close()


@pytest.mark.parametrize("is_object", [False, True], ids=["type", "object"])
def test_a_plateau_with_floors_by_group_follows_a_later_one_or_refuses_it(
    is_object: bool,
) -> None:
    optimizer = make_optimizer(1.0)
    options: dict[str, Any] = {"factor": 0.5, "patience": 0}
    if is_object:
        plateau = ReduceLROnPlateau(optimizer, min_lr=[0.3], **options)
        callback = LearningRateSchedulerCallback(plateau)
    else:
        options |= {"type": "plateau", "min_factor": 0.3}
        callback = LearningRateSchedulerCallback(**options)
    trainer = fake_trainer(optimizer)
    begin(callback, trainer)
    add_group(optimizer)
    if is_object:
        with pytest.raises(ConfigError, match="1 parameter group and cannot follow"):
            callback.on_metrics(trainer, {"val_loss": 1.0})
        return
    for _ in range(4):
        callback.on_metrics(trainer, {"val_loss": 1.0})
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.3, 0.03])
