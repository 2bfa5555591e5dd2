"""Schedulers of every kind, and runs that note which rates they use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from toy import Regression, groups_of, regression_batches

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Trainer

UPDATES = 12
#: Options that schedulers move.
WATCHED = ("lr", "momentum", "betas")


class Noting(torch.optim.SGD):
    """Notes the options of every group at the moment they are used."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.used: list[Any] = []

    def step(self, closure: Any = None) -> Any:
        self.used.append(
            [
                {name: float(group[name]) for name in WATCHED if name in group}
                for group in self.param_groups
            ]
        )
        return super().step(closure)


def make_optimizer(model: Any, as_tensors: bool = False) -> Noting:
    rates = [torch.tensor(r) if as_tensors else r for r in (0.1, 0.02)]
    return Noting(groups_of(model, *rates), lr=0.1, momentum=0.9)


def factor(number: int, *, num_warmup_steps: int, num_training_steps: int) -> float:
    """As transformers' linear schedule with warmup binds it."""
    if number < num_warmup_steps:
        return number / max(1, num_warmup_steps)
    rest = num_training_steps - number
    return max(0.0, rest / max(1, num_training_steps - num_warmup_steps))


def warmup(o: Any, warm: int = 4, length: int = UPDATES) -> LambdaLR:
    bound = functools.partial(factor, num_warmup_steps=warm, num_training_steps=length)
    return LambdaLR(o, bound)


def joined(o: Any, *parts: Any, at: int = 4) -> SequentialLR:
    return SequentialLR(o, list(parts), [at + 3 * n for n in range(len(parts) - 1)])


def linear(o: Any) -> LinearLR:
    return LinearLR(o, start_factor=0.1, total_iters=4)


def one_cycle(o: Any, length: int = 20, **options: Any) -> OneCycleLR:
    return OneCycleLR(o, max_lr=[0.1, 0.02], total_steps=length, **options)


def cyclic(o: Any, **options: Any) -> CyclicLR:
    return CyclicLR(o, 0.01, 0.1, step_size_up=2, step_size_down=3, **options)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: LambdaLR(o, lambda n: 1 / (n + 1)),
    "LambdaLR, numpy": lambda o: LambdaLR(o, lambda n: np.cos(n / UPDATES)),
    "LambdaLR, bound": warmup,
    "LambdaLR, two": lambda o: LambdaLR(o, [lambda n: 0.9**n, lambda n: 0.5**n]),
    "MultiplicativeLR": lambda o: MultiplicativeLR(o, lambda n: 1 - n / 50),
    "StepLR": lambda o: StepLR(o, np.int64(3), gamma=np.float64(0.5)),
    "MultiStepLR": lambda o: MultiStepLR(o, [3, 6, 6]),
    "ConstantLR": lambda o: ConstantLR(o, 0.5, 4),
    "LinearLR": linear,
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: PolynomialLR(o, UPDATES, power=2.0),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, np.int64(UPDATES)),
    "WarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    "CyclicLR": cyclic,
    "CyclicLR, triangular2": lambda o: cyclic(o, mode="triangular2"),
    "CyclicLR, exp_range": lambda o: cyclic(o, mode="exp_range", gamma=0.9),
    "CyclicLR, function": lambda o: cyclic(o, scale_fn=lambda x: 0.5**x),
    "OneCycleLR": lambda o: one_cycle(o, UPDATES),
    "OneCycleLR, phases": lambda o: one_cycle(o, UPDATES, three_phase=True),
    "OneCycleLR, linear": lambda o: one_cycle(o, UPDATES, anneal_strategy="linear"),
    "warmup, MultiStepLR": lambda o: joined(o, linear(o), MultiStepLR(o, [3, 6])),
    "warmup, OneCycleLR": lambda o: joined(o, linear(o), one_cycle(o)),
    "OneCycleLR, then": lambda o: joined(o, one_cycle(o), ExponentialLR(o, 0.9)),
    "warmup, CyclicLR": lambda o: joined(o, linear(o), cyclic(o)),
    "warmup, restarts": lambda o: joined(
        o, linear(o), CosineAnnealingWarmRestarts(o, 3)
    ),
    "warmup, function": lambda o: joined(o, linear(o), LambdaLR(o, lambda n: 0.9**n)),
    "three in a row": lambda o: joined(
        o, linear(o), CosineAnnealingLR(o, 3), MultiStepLR(o, [2, 4])
    ),
    "chained": lambda o: ChainedScheduler([ConstantLR(o, 0.5, 4), MultiStepLR(o, [5])]),
    "chained cycles": lambda o: ChainedScheduler(
        [cyclic(o, cycle_momentum=False), ExponentialLR(o, 0.9)]
    ),
    "a row in a row": lambda o: joined(
        o, joined(o, linear(o), MultiStepLR(o, [1, 2]), at=2), StepLR(o, 2), at=7
    ),
    "a chain in a row": lambda o: joined(
        o, ChainedScheduler([linear(o), MultiStepLR(o, [2])]), StepLR(o, 2), at=6
    ),
    "a row in a chain": lambda o: ChainedScheduler(
        [joined(o, linear(o), MultiStepLR(o, [3])), ExponentialLR(o, 0.95)]
    ),
}


def bare(make: Callable[[Any], Any], as_tensors: bool = False) -> list[Any]:
    model = Regression()
    optimizer = make_optimizer(model, as_tensors)
    schedule = make(optimizer)
    for batch in regression_batches(4) * (UPDATES // 4):
        optimizer.zero_grad()
        model(*batch)["loss"].backward()
        optimizer.step()
        schedule.step()
    return optimizer.used


def trainer_of(
    make: Callable[[Any], Any],
    *callbacks: Any,
    as_tensors: bool = False,
    batches: int = 4,
    num_epochs: int = UPDATES // 4,
    accumulation: int = 1,
    **options: Any,
) -> Trainer:
    model = Regression()
    optimizer = make_optimizer(model, as_tensors)
    plugin = LearningRateSchedulerCallback(
        make(optimizer), **{"interval": "step", **options}
    )
    return Trainer(
        model,
        regression_batches(batches),
        optimizer=optimizer,
        callbacks=[plugin, *callbacks],
        num_epochs=num_epochs,
        gradient_accumulation_steps=accumulation,
        device="cpu",
        seed=0,
    )


def used(trainer: Trainer) -> Any:
    return trainer.optimizer.used  # type: ignore[attr-defined]
