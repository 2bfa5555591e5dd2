"""What parts of a loader keep in Python: no checkpoint asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from training.modules.of_user import is_users_function
from training.modules.reachable import (
    MOST_ITEMS,
    held_in,
    joined,
    reachable,
)
from training.modules.unsaved_buffers import holds_numbers
from training.plain import is_number

if TYPE_CHECKING:
    from training.feed.epoch_loader import EpochLoader


def numbers_in(
    order: EpochLoader, passed_over: Iterable[Any]
) -> Iterator[tuple[str, Any]]:
    """Yield (place, number or tensor) of samplers, collate functions and data sets.

    Not those of a part with ``set_epoch``, which is told where it is, nor of a loader
    that saves its state. Of a data set no lists and mappings: they are its rows.

    Args:
        order: of the training batches.
        passed_over: objects that others save.
    """
    parts = [] if order.has_state else list(order.parts())
    # A method of a data set leads to it.
    passed = [*passed_over, *(each for each in parts if not is_users_function(each))]
    ids = set(map(id, passed_over))
    for part in parts:
        if hasattr(part, "set_epoch") or id(part) in ids:
            continue
        place = f"train_dataloader.{getattr(part, '__name__', type(part).__name__)}"
        if is_users_function(part):
            for name, held in reachable(part, passed):
                yield joined(place, name), held
        elif not (callable(part) or isinstance(part, DataLoader)):
            for name, value in getattr(part, "__dict__", {}).items():
                if isinstance(part, Sampler) or _is_small(value):
                    for at, held in held_in(value, name):
                        yield joined(place, at), held


def _is_small(value: Any) -> bool:
    """Whether it is no list of rows, and no part of it has to be copied to be read."""
    values = value if type(value) is tuple else (value,)
    return len(values) <= MOST_ITEMS and all(
        (holds_numbers(each) and each.is_contiguous())
        if type(each) is Tensor
        else is_number(each)
        for each in values
    )
