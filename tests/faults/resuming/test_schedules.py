"""Schedules use torch's own rates, fresh, again, and resumed from every boundary.

In the table every class of ``torch.optim.lr_scheduler`` and its nestings run beside a
bare loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.schedules import (
    SCHEDULES,
    UPDATES,
    bare,
    make_optimizer,
    trainer_of,
    used,
    warmup,
)
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import (
    ReduceLROnPlateau,
    StepLR,
)
from toy import Regression, Saves

from trainbus_lr_scheduling.groups import parts_of
from training import Callback, CheckpointError, ConfigError, Trainer

# torch says so of its own doing, where a row of schedulers is inside another.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")


def test_the_table_has_every_class_of_torch() -> None:
    made = {
        type(part).__name__
        for make in SCHEDULES.values()
        for part in parts_of(make(make_optimizer(Regression())))
    }
    with_a_metric = {"ReduceLROnPlateau"}  # a test of its own
    assert made | with_a_metric == set(torch_schedulers.__all__) - {"LRScheduler"}


def assert_rates(
    make_trainer: Callable[..., Trainer], expected: Any, folder: Path, every: int = 1
) -> None:
    """A run uses these rates: whole, trained twice, and from every boundary on."""
    whole = make_trainer(Saves(folder / "{step}.pt", each_step=True))
    whole.train()
    assert used(whole) == expected
    for step in range(1, UPDATES, every):
        resumed = make_trainer()
        resumed.load_checkpoint(folder / f"{step}.pt")
        resumed.train()
        assert used(resumed) == expected[step:], f"resumed after {step} updates"
    whole.train()
    assert used(whole)[UPDATES:] == expected, "a second run begins at the beginning"


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("as_tensors", [False, True], ids=["", "rates as tensors"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_s2_any_schedule_has_torch_s_own_rates_fresh_and_from_every_boundary(
    tmp_path: Path, name: str, as_tensors: bool
) -> None:
    make = SCHEDULES[name]
    make_trainer = functools.partial(trainer_of, make, as_tensors=as_tensors)
    every = 3 if as_tensors else 1
    assert_rates(make_trainer, bare(make, as_tensors), tmp_path, every)


class Measures(Callback):
    """Delivers a value of val_loss for each epoch, which improves no more from 3."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": max(1.0, 4.0 - trainer.epoch)}


def test_s2_a_plateau_has_torch_s_own_rates_fresh_and_from_every_boundary(
    tmp_path: Path,
) -> None:
    def make(optimizer: Any) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, patience=1, cooldown=1, factor=0.5)

    def trainer(*callbacks: Any) -> Trainer:
        return trainer_of(
            make, Measures(), *callbacks, interval=None, batches=1, num_epochs=UPDATES
        )

    model = Regression()
    optimizer = make_optimizer(model)
    schedule = make(optimizer)
    for epoch in range(1, UPDATES + 1):
        optimizer.step()
        schedule.step(max(1.0, 4.0 - epoch))
    assert_rates(trainer, optimizer.used, tmp_path)


def in_closure(optimizer: Any, warm: int = 4) -> Any:
    return torch_schedulers.LambdaLR(optimizer, lambda n: min(1.0, max(0.1, n / warm)))


def in_default(optimizer: Any, warm: int = 4) -> Any:
    return torch_schedulers.LambdaLR(
        optimizer, lambda n, own=warm: min(1.0, max(0.1, n / own))
    )


@pytest.mark.parametrize("warmup", [warmup, in_closure, in_default])
def test_s2_other_arguments_of_a_function_are_not_resumed_in_silence(
    warmup: Callable[..., Any], tmp_path: Path
) -> None:
    trainer_of(warmup, Saves(tmp_path / "{step}.pt", each_step=True)).train()

    def resumed(**options: Any) -> Trainer:
        other = trainer_of(functools.partial(warmup, warm=2), **options)
        other.load_checkpoint(tmp_path / "6.pt")
        return other

    with pytest.raises(CheckpointError, match=r"arguments is .*on_schedule_change"):
        resumed().train()
    with pytest.raises(CheckpointError, match="no checkpoint holds the functions"):
        resumed(on_schedule_change="keep").train()
    rescaled = resumed(on_schedule_change="rescale")
    rescaled.train()
    assert used(rescaled) == bare(functools.partial(warmup, warm=2))[6:]


# Schedulers of one's own ---------------------------------------


class Halves:
    """Has ``step`` and nothing else that torch's schedulers have."""

    def __init__(self, optimizer: Any) -> None:
        self.adam = optimizer
        self.factors = (0.5, np.float64(0.8))
        self.count = 0

    def step(self) -> None:
        for group in self.adam.param_groups:
            group["lr"] *= self.factors[self.count % 2]
        self.count += 1


class Remembers(Halves):
    """The same with a state of its own, and the optimizer by torch's name."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


@pytest.mark.parametrize("kind", [Halves, Remembers])
def test_s2_a_scheduler_of_one_s_own_resumes_from_every_boundary(
    tmp_path: Path, kind: Any
) -> None:
    assert_rates(functools.partial(trainer_of, kind), bare(kind), tmp_path)


class NeedsEpoch(Halves):
    def step(self, epoch: int) -> None:  # type: ignore[override]
        pass


class SavesOnly(Halves):
    def state_dict(self) -> dict[str, Any]:
        return {}


class KeepsGroups(Halves):
    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.groups = optimizer.param_groups


class KeepsAnother(Halves):
    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.after = StepLR(optimizer, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda o: Halves, "is no scheduler", id="a class"),
        pytest.param(lambda o: object(), "is no scheduler", id="no step"),
        pytest.param(lambda o: lambda: None, "is no scheduler", id="a function"),
        pytest.param(NeedsEpoch, r"step\(\) needs epoch", id="an argument"),
        pytest.param(SavesOnly, "both state_dict", id="half a state"),
        pytest.param(KeepsGroups, r"its state\['groups'\].*a Tensor", id="groups"),
        pytest.param(KeepsAnother, r"its state\['after'\] is a StepLR", id="another"),
        pytest.param(
            lambda o: Remembers(make_optimizer(Regression())), "another opt", id="alien"
        ),
    ],
)
def test_one_that_cannot_be_carried_on_is_refused_before_the_first_step(
    make: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer_of(make).train()
