"""Which rates a run gave or left to an optimizer: another one was set since.

Noted by optimizer and not by plugin: the next run may have another one of these, in
another Trainer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer

from training import ConfigError

logger = logging.getLogger(__name__)

#: Of a torch optimizer: what is to be called once it has loaded a state.
LOADED = "_optimizer_load_state_dict_post_hooks"
#: Optimizer -> first parameter of a group -> its full rate and the rate it was left at.
_left: WeakKeyDictionary[Optimizer, dict[int, tuple[float, float]]]
_left = WeakKeyDictionary()


def note_left(optimizer: Optimizer) -> None:
    """Note the groups' rates as those that a run has given them, or left."""
    if optimizer not in _left and hasattr(optimizer, LOADED):  # no wrapper has it
        optimizer.register_load_state_dict_post_hook(_note_loaded)
    _left[optimizer] = {
        _key(group): (float(group["initial_lr"]), float(group["lr"]))
        for group in optimizer.param_groups
        if "initial_lr" in group and group["params"]
    }


def _note_loaded(optimizer: Optimizer) -> None:
    """Note rates that a state brought with it: nobody has set them."""
    for _, group, noted in _groups(optimizer):
        if noted is not None:
            _left[optimizer][_key(group)] = (noted[0], float(group["lr"]))


def heed_set_rates(scheduler: Any, optimizer: Optimizer) -> None:
    """Take up what was set before a run; refuse it beside a scheduler object."""
    if scheduler is None:
        _take_up_set_rates(optimizer)
    else:
        refuse_set_rates(scheduler, optimizer)


def _take_up_set_rates(optimizer: Optimizer) -> None:
    """Make a rate that was set since a run left another the group's full rate."""
    for number, group, noted in _groups(optimizer):
        rate = float(group["lr"])
        if noted is not None and not is_same(rate, noted[1]):
            group["initial_lr"] = rate
            logger.info(
                "lr_scheduling: the rate of parameter group %d was set to %g after the "
                "last run, and is its full rate now; it was %g",
                *(number, rate, noted[0]),
            )


def refuse_set_rates(scheduler: Any, optimizer: Optimizer) -> None:
    """Refuse a rate that a scheduler, which begins at its own, would pass over.

    Args:
        scheduler: that of the user, None for a plateau by ``type``; its own rate is no
            other one, nor is one that was noted.
        optimizer: the one whose rates it moves.
    Raises:
        ConfigError: names group, rate and scheduler.
    """
    own = scheduler.get_last_lr() if hasattr(scheduler, "get_last_lr") else []
    for number, group, noted in _groups(optimizer):
        name, rate = type(scheduler).__name__, float(group["lr"])
        known = [float(each) for each in own[number : number + 1]]
        known += [noted[1]] if noted is not None else []
        if not known or any(is_same(rate, each) for each in known):
            continue
        way = (
            f"the {name} begins at that which it was built with; set the group's "
            f"initial_lr, too, and build the {name} anew, put its rate back to "
            f"{known[-1]:g}, or, where a plugin sets it and the {name} multiplies "
            "rates, set it in on_epoch_begin"
            if scheduler is not None
            else f"the plateau begins at {known[-1]:g}, which it found in on_setup; "
            'set it there, in a plugin with before = ("lr_scheduling",), or in '
            "on_epoch_begin"
        )
        raise ConfigError(
            f"lr_scheduling: the rate of parameter group {number} was set to {rate:g}, "
            f"but {way}"
        )


def _groups(
    optimizer: Optimizer,
) -> Iterator[tuple[int, dict[str, Any], tuple[float, float] | None]]:
    """Yield number, group, and what was noted of it."""
    noted = _left.get(optimizer, {})
    for number, group in enumerate(optimizer.param_groups):
        yield number, group, noted.get(_key(group))


def _key(group: dict[str, Any]) -> int:
    return next(map(id, group["params"]), 0)  # 0 is noted for none


def is_same(a: float, b: float) -> bool:
    """Whether two rates are the same one, however they were kept."""
    return math.isclose(a, b, rel_tol=1e-6)  # a rate may have become a tensor in fp32
