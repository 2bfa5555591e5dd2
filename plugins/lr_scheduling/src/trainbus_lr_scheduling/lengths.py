"""How many advances a torch scheduler is made for, where it can be told."""

from __future__ import annotations

import functools
from numbers import Integral

from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
)


def scheduler_length(scheduler: LRScheduler) -> int | None:
    """Return after how many advances a torch scheduler ends; None if it never does.

    A ``LambdaLR`` made by transformers' ``get_..._schedule_with_warmup`` says so in the
    arguments of its function.
    """
    if isinstance(scheduler, SequentialLR):
        last = scheduler_length(scheduler._schedulers[-1])
        return None if last is None else scheduler._milestones[-1] + last
    if isinstance(scheduler, LambdaLR):
        return _argument(scheduler, "num_training_steps")
    names = ["total_steps", "T_max"]
    names += ["total_iters"] if isinstance(scheduler, PolynomialLR) else []
    lengths = [getattr(scheduler, name, None) for name in names]
    return next((int(each) for each in lengths if isinstance(each, Integral)), None)


def first_part(scheduler: LRScheduler) -> int:
    """Return after how many advances the rate is what the scheduler leads up to.

    0 for one that begins there: a warmup is a part that has to end within the run.
    """
    if isinstance(scheduler, (LinearLR, ConstantLR)):
        return int(scheduler.total_iters)
    if isinstance(scheduler, SequentialLR):
        return int(scheduler._milestones[-1])
    if isinstance(scheduler, LambdaLR):
        return _argument(scheduler, "num_warmup_steps") or 0
    return 0


def first_cycle(scheduler: LRScheduler) -> int:
    """Return after how many advances the rate is first restarted; 0 if it never is."""
    if isinstance(scheduler, SequentialLR):
        last = first_cycle(scheduler._schedulers[-1])
        return last and scheduler._milestones[-1] + last
    return scheduler.T_0 if isinstance(scheduler, CosineAnnealingWarmRestarts) else 0


def _argument(scheduler: LambdaLR, name: str) -> int | None:
    """Return a keyword that was bound to the function of the first group."""
    function = scheduler.lr_lambdas[0]
    if not isinstance(function, functools.partial):
        return None
    value = function.keywords.get(name)
    return int(value) if isinstance(value, Integral) else None
