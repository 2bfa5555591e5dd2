"""A schedule is never stepped in another unit than it was made for in silence."""

from __future__ import annotations

import copy
import functools
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from faults.schedules import (
    SCHEDULES,
    UPDATES,
    bare,
    joined,
    linear,
    make_optimizer,
    one_cycle,
    trainer_of,
    warmup,
)
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    SequentialLR,
    StepLR,
)
from toy import Regression

from trainbus_lr_scheduling.course import rates_over
from training import ConfigError, Trainer
from training.hardware.rng import rng_state

# torch says so of its own doing, where a row of schedulers is inside another.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

EPOCHS, LENGTH = 3, 90
FOR_UPDATES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "transformers": (lambda o: warmup(o, 30, LENGTH), "90 advances long"),
    "only a warmup": (
        lambda o: LambdaLR(o, functools.partial(factor_of_warmup, num_warmup_steps=30)),
        "first part is 30 advances long",
    ),
    "a longer run's": (lambda o: warmup(o, 500, 3000), "first part is 500"),
    "in batches": (lambda o: CosineAnnealingLR(o, 180), "180 advances long"),
    "a closure": (lambda o: LambdaLR(o, lambda n: min(1, n / 9)), "leaves its warmup"),
    "a closure that falls": (lambda o: LambdaLR(o, lambda n: 1 - n / 90), "hardly"),
    "ExponentialLR": (lambda o: ExponentialLR(o, 0.99), "hardly moves"),
    "CosineAnnealingLR": (lambda o: CosineAnnealingLR(o, LENGTH), "90 advances"),
    "OneCycleLR": (lambda o: one_cycle(o, LENGTH), "90 advances"),
    "LinearLR": (lambda o: LinearLR(o, 0.1, total_iters=9), "first part is 9"),
    "a row": (
        lambda o: SequentialLR(o, [linear(o), CosineAnnealingLR(o, 80)], [4]),
        "84 advances long",
    ),
    "a chain": (
        lambda o: ChainedScheduler([LinearLR(o, 0.1, total_iters=40), StepLR(o, 60)]),
        "leaves its warmup",
    ),
    "CyclicLR": (lambda o: CyclicLR(o, 0.01, 0.1, step_size_up=20), "its warmup"),
    "restarts": (lambda o: CosineAnnealingWarmRestarts(o, 30), "cycle is 30 advances"),
    "restarts in batches": (lambda o: CosineAnnealingWarmRestarts(o, 60), "is 60"),
    "restarts after a warmup": (
        lambda o: SequentialLR(
            o, [LinearLR(o, total_iters=2), CosineAnnealingWarmRestarts(o, 60)], [2]
        ),
        "cycle is 62 advances",
    ),
}
FOR_EPOCHS: dict[str, Callable[[Any], Any]] = {
    "the length of the run": lambda o: CosineAnnealingLR(o, T_max=EPOCHS),
    "longer than the run": lambda o: CosineAnnealingLR(o, T_max=10),
    "a long warmup and fall": lambda o: warmup(o, 1, EPOCHS),
    "StepLR": lambda o: StepLR(o, 1),
    "StepLR for later": lambda o: StepLR(o, 10),
    "MultiStepLR for later": lambda o: MultiStepLR(o, [5, 8]),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "a closure": lambda o: LambdaLR(o, lambda n: 1 / (n + 1)),
    "a constant": lambda o: LambdaLR(o, lambda n: 1.0),
    "OneCycleLR": lambda o: one_cycle(o, EPOCHS),
    "a warmup of one epoch": lambda o: LinearLR(o, 0.5, total_iters=1),
    "restarts for later": lambda o: CosineAnnealingWarmRestarts(o, 10),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, EPOCHS),
    "a table of epochs": lambda o: LambdaLR(o, lambda n: [1, 0.5, 0.1, 0][n]),
}


def factor_of_warmup(number: int, *, num_warmup_steps: int) -> float:
    return min(1.0, number / num_warmup_steps)


def of_ninety(make: Callable[[Any], Any], **options: Any) -> Trainer:
    """Return a run of 3 epochs, 90 updates and 180 batches."""
    options = {"batches": 60, "accumulation": 2, "num_epochs": EPOCHS, **options}
    return trainer_of(make, **options)


@pytest.mark.parametrize("name", FOR_UPDATES)
def test_s1_a_schedule_of_updates_is_not_stepped_by_epochs_in_silence(
    name: str,
) -> None:
    make, reason = FOR_UPDATES[name]
    trainer = of_ninety(make, interval=None)
    with pytest.raises(ConfigError, match=f"{reason}.*interval='step'"):
        trainer.train()
    assert trainer.step == 0


@pytest.mark.parametrize("name", FOR_EPOCHS)
def test_s1_a_schedule_of_epochs_needs_no_word(name: str) -> None:
    trainer = of_ninety(FOR_EPOCHS[name], interval=None)
    trainer.train()
    assert trainer.epoch == EPOCHS


def test_s1_what_was_said_holds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        of_ninety(lambda o: warmup(o, 30, LENGTH), interval="epoch").train()
        of_ninety(lambda o: warmup(o, 30, LENGTH), interval="step").train()
    assert "LambdaLR advances after each epoch, 3 in all" in caplog.text
    assert "begins at 0, is 0.00666667 at most, ends at 0.00666667" in caplog.text
    assert "LambdaLR advances after each update, 90 in all" in caplog.text
    assert "begins at 0, is 0.1 at most, ends at 0.00166667" in caplog.text


def test_a_schedule_that_ends_inside_the_run_is_refused_before_it() -> None:
    trainer = trainer_of(lambda o: joined(o, linear(o), one_cycle(o, 5)))
    with pytest.raises(ConfigError, match=r"fails at advance 10 of the 12 .*build it"):
        trainer.train()
    trainer = trainer_of(lambda o: LambdaLR(o, lambda n: [1, 0.5][n]))
    with pytest.raises(ConfigError, match=r"fails at advance \d+ of the 12 .*IndexE"):
        trainer.train()


@pytest.mark.parametrize("name", SCHEDULES)
def test_looking_ahead_touches_nothing_of_the_run(name: str) -> None:
    optimizer = make_optimizer(Regression())
    scheduler = SCHEDULES[name](optimizer)

    def everything() -> Any:
        groups = [
            {n: v for n, v in group.items() if n != "params"}
            for group in optimizer.param_groups
        ]
        return copy.deepcopy((groups, scheduler.state_dict(), random.getstate()))

    before, drawn = everything(), rng_state()["torch"]
    rates = rates_over(scheduler, optimizer, UPDATES)
    assert everything() == before
    assert torch.equal(rng_state()["torch"], drawn)
    # A formula rounds otherwise than steps do that build on one another.
    reached = [max(g["lr"] for g in each) for each in bare(SCHEDULES[name])]
    assert rates == pytest.approx(reached, rel=1e-9, abs=1e-12)


def test_a_function_that_draws_leaves_the_generators_as_they_were() -> None:
    optimizer = make_optimizer(Regression())
    scheduler = LambdaLR(optimizer, lambda n: float(torch.rand(())) + random.random())
    drawn = rng_state()
    assert len(rates_over(scheduler, optimizer, 10**7) or ()) == 1000
    assert torch.equal(rng_state()["torch"], drawn["torch"])
    assert rng_state()["python"] == drawn["python"]


def test_what_has_a_formula_is_foretold_for_a_run_of_any_length() -> None:
    optimizer = make_optimizer(Regression())
    scheduler = CosineAnnealingLR(optimizer, 10**7)
    rates = rates_over(scheduler, optimizer, 10**7)
    assert len(rates or ()) == 1000
    assert rates == sorted(rates or (), reverse=True)


def test_steps_of_ones_own_are_believed_and_not_an_inherited_formula() -> None:
    class Halving(StepLR):
        def get_lr(self) -> list[float]:
            groups = self.optimizer.param_groups
            return [group["lr"] / (2 if self.last_epoch else 1) for group in groups]

    optimizer = make_optimizer(Regression())
    rates = rates_over(Halving(optimizer, 100), optimizer, 3)
    assert rates == [0.1, 0.05, 0.025]


def test_a_rate_set_since_is_where_the_steps_go_on_from() -> None:
    optimizer = make_optimizer(Regression())
    scheduler = StepLR(optimizer, 1)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    assert rates_over(scheduler, optimizer, 2) == [0.5, pytest.approx(0.05)]


def test_a_function_is_asked_from_the_epoch_on_that_it_was_built_to_go_on_at() -> None:
    optimizer = make_optimizer(Regression())
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    scheduler = LambdaLR(optimizer, lambda n: 1 / (1 + n), last_epoch=2)
    assert rates_over(scheduler, optimizer, 2) == pytest.approx([0.1 / 4, 0.1 / 5])


class Warms:
    """A function that counts its calls by itself, below another."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return min(1.0, self.calls / 10)


def of_closure() -> Callable[[int], float]:
    calls, inner = [0], Warms()

    def warm(epoch: int) -> float:
        calls[0] += 1
        return min(calls[0] / 10, inner(epoch))

    return lambda epoch: warm(epoch)


def of_default() -> Callable[[int], float]:
    def warm(epoch: int, own: Any = Warms()) -> float:  # noqa: B008
        return float(own(epoch))

    return warm


@pytest.mark.parametrize("make", [Warms, of_closure, of_default])
@pytest.mark.parametrize("kind", [LambdaLR, MultiplicativeLR])
def test_functions_that_count_by_themselves_are_not_moved_by_looking(
    kind: Any, make: Any
) -> None:
    looked_at, left_alone = (make_optimizer(Regression()) for _ in range(2))
    schedulers = kind(looked_at, make()), kind(left_alone, make())
    rates_over(schedulers[0], looked_at, 5)
    for _ in range(3):
        for scheduler in schedulers:
            scheduler.step()
        assert schedulers[0].get_last_lr() == schedulers[1].get_last_lr()
