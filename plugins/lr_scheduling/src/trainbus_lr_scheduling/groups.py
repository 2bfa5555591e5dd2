"""Which schedulers can follow a parameter group that joins after they were built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.optim.swa_utils import SWALR

from training import ConfigError
from training.plugin import count

#: What keeps something of each group from its making on, and fails beside another one.
#: All others multiply the rate that a group has.
FIXED = (
    *(CosineAnnealingWarmRestarts, CyclicLR, LambdaLR, MultiplicativeLR, OneCycleLR),
    *(SequentialLR, SWALR),
)


def parts_of(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler and, to any depth, those that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from parts_of(part)


def check_groups(scheduler: Any, optimizer: Optimizer) -> None:
    """Refuse groups that a scheduler was not built for and cannot follow.

    Raises:
        ConfigError: says for how many it was built, and how many there are.
    """
    parts, now = list(parts_of(scheduler)), len(optimizer.param_groups)
    built = [len(part.base_lrs) for part in parts if hasattr(part, "base_lrs")]
    is_fixed = any(isinstance(part, FIXED) for part in parts)
    if isinstance(scheduler, ReduceLROnPlateau):
        built = [len(scheduler.min_lrs)]
        is_fixed = scheduler.default_min_lr is None  # a floor for each group
    others = [number for number in built if number != now]
    if others and is_fixed:
        raise ConfigError(
            f"lr_scheduling: the {type(scheduler).__name__} was built for an optimizer "
            f"with {count(others[0], 'parameter group')} and cannot follow the {now} "
            "that it has; build it when all have joined, or use a type, which takes "
            "each group from its own rate"
        )
