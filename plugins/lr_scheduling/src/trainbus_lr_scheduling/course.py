"""Which rates a scheduler object will reach, found out before the run.

Nothing of the run is touched: a copy of the scheduler is stepped, over a stand-in for
the optimizer that has its options and no parameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from trainbus_lr_scheduling.schedule_functions import copy_with_functions
from training import ConfigError
from training.plugin import load_rng_state, rng_state

#: Steps of a copy at most: half a second. A formula is asked here and there instead.
MOST_STEPS = 50_000
MOST_POINTS = 1_000
#: How a torch scheduler that has a formula is asked for the rates at ``last_epoch``.
FORMULA = "_get_closed_form_lr"


def rates_over(
    scheduler: Any, optimizer: Optimizer, advances: int
) -> list[float] | None:
    """Return the rates that a run of ``advances`` would use, the first one first.

    Args:
        scheduler: fresh.
        optimizer: the one whose rates it moves.
        advances: updates or epochs; one rate for each, or at 1,000 points between the
            first and the last where a formula tells the rate at any of them.
    Returns: the highest rate of the groups at each point; None for a scheduler of one's
        own, for one that cannot be copied, or where it would take too long.
    Raises:
        ConfigError: the scheduler does not come that far.
    """
    if not isinstance(scheduler, LRScheduler) or advances < 1:
        return None
    drawn = rng_state()  # a function may draw
    try:
        rate_at = _formula(scheduler, optimizer)
        if rate_at is not None:
            return _asked(rate_at, scheduler, advances)
        return _stepped(scheduler, optimizer, advances)
    finally:
        load_rng_state(drawn)


def _formula(
    scheduler: LRScheduler, optimizer: Optimizer
) -> Callable[[int], float] | None:
    """Return what tells the highest rate after any number of advances, if it can."""
    kind = type(scheduler)
    is_of_functions = isinstance(scheduler, LambdaLR) and kind.get_lr is LambdaLR.get_lr
    # That of the class whose steps it tells: one that inherits it has others.
    stepping = next(each for each in kind.__mro__ if "get_lr" in vars(each))
    is_formula = FORMULA in vars(stepping) and kind.step is LRScheduler.step
    if not is_of_functions and not is_formula:
        return None
    try:
        twin, groups = _twin(scheduler, optimizer)
    except Exception:  # an attribute that cannot be copied: stepping it says no more
        return None
    if is_of_functions:
        return partial(_of_functions, twin)
    first, formula = twin.last_epoch, getattr(twin, FORMULA)

    def rate_at(advance: int) -> float:
        twin.last_epoch = first + advance
        return max(map(float, formula()))

    # Somebody may have set another rate since, from which steps would go on.
    now = max(float(group["lr"]) for group in groups)
    return rate_at if math.isclose(rate_at(0), now, rel_tol=1e-6) else None


def _of_functions(scheduler: LambdaLR, advance: int) -> float:
    pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    at = scheduler.last_epoch + advance  # it may have been built to go on at another
    return max(float(base) * float(function(at)) for base, function in pairs)


def _asked(
    rate_at: Callable[[int], float], scheduler: LRScheduler, advances: int
) -> list[float]:
    count = min(advances, MOST_POINTS)
    points = [at * (advances - 1) // max(1, count - 1) for at in range(count)]
    rates = []
    for point in [*points, advances]:  # the last one is set, but not used any more
        try:
            rates.append(rate_at(point))
        except Exception as error:
            raise _ends(scheduler, point, advances, error) from error
    return rates[:-1]


def _stepped(
    scheduler: LRScheduler, optimizer: Optimizer, advances: int
) -> list[float] | None:
    if advances > MOST_STEPS:
        return None
    try:
        twin, groups = _twin(scheduler, optimizer)
    except Exception:  # an attribute that cannot be copied: then nothing is foretold
        return None
    rates = []
    with warnings.catch_warnings():  # "before optimizer.step()"
        warnings.simplefilter("ignore")
        for number in range(1, advances + 1):
            rates.append(max(float(group["lr"]) for group in groups))
            try:
                twin.step()
            except Exception as error:
                if number == 1:  # it asks for more than the stand-in has
                    return None
                raise _ends(scheduler, number, advances, error) from error
    return rates


def _ends(scheduler: Any, at: int, of: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"lr_scheduling: the {type(scheduler).__name__} fails at advance {at} of the "
        f"{of} that this run has ({type(error).__name__}: {error}); build it for {of}"
    )


def _twin(scheduler: Any, optimizer: Optimizer) -> tuple[Any, list[dict[str, Any]]]:
    """Return a copy of ``scheduler``, and the groups whose rates it moves."""
    groups: list[dict[str, Any]] = [
        {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in group.items()
            if name != "params"
        }
        for group in optimizer.param_groups
    ]
    stand_in = SimpleNamespace(
        param_groups=groups, defaults=optimizer.defaults, state={}, step=lambda: None
    )
    memo: dict[int, Any] = {id(optimizer): stand_in}
    for group in optimizer.param_groups:  # weights are shared, should they be met
        memo.update({id(parameter): parameter for parameter in group["params"]})
    return copy_with_functions(scheduler, memo), groups
