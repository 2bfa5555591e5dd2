"""Hear of a parameter group as it joins an optimizer, which torch announces to nobody.

Before a step would be too late: whoever looks at the rates of a window before its step
would see others than it uses, and a step that is recorded is not announced either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from trainbus_lr_scheduling.left import LOADED

#: Of a torch optimizer: what lets a group join.
ADD = "add_param_group"


@contextmanager
def heard(
    optimizer: Optimizer, tell: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Call ``tell`` with each group that joins ``optimizer`` meanwhile.

    Args:
        optimizer: its steps cost nothing more.
        tell: gets the group, which is among the others by then; and again each time
            that a state was loaded, by which a resumed run gives it the saved rate.
    """
    add, own = optimizer.add_param_group, vars(optimizer).get(ADD)
    is_over, joined = False, set[int]()

    def tell_again(_: Optimizer) -> None:
        for group in optimizer.param_groups:
            if not joined.isdisjoint(map(id, group["params"])):
                tell(group)

    @functools.wraps(add)
    def add_and_tell(*args: Any, **options: Any) -> None:
        before = len(optimizer.param_groups)
        add(*args, **options)
        if is_over:  # somebody has wrapped this one, and keeps it
            return
        for group in optimizer.param_groups[before:]:
            joined.update(map(id, group["params"]))
            tell(group)

    setattr(optimizer, ADD, add_and_tell)
    loads = None
    if hasattr(optimizer, LOADED):  # no wrapper has it
        loads = optimizer.register_load_state_dict_post_hook(tell_again)
    try:
        yield
    finally:
        is_over = True
        if loads is not None:
            loads.remove()
        if getattr(optimizer, ADD) is add_and_tell:
            delattr(optimizer, ADD)
            if own is not None:
                setattr(optimizer, ADD, own)
