"""The functions of a scheduler: what is bound to them, and a copy that has its own.

``copy.deepcopy`` takes a function for a constant: what it counts in its closure or its
defaults would be that of the run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from types import CellType, FunctionType
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

#: Values in one closure, at most: more of them are data that nobody counts in.
MOST_VALUES = 1_000


def copy_with_functions(scheduler: LRScheduler, memo: dict[int, Any]) -> Any:
    """Return a copy, with copies of the functions that it holds.

    What is large or no plain value in their closures, such as a model, is shared.

    Args:
        scheduler: its attributes are looked at, and those of schedulers in it.
        memo: as of ``copy.deepcopy``: what stands in for what.
    """
    pairs = [(each, _hull_of(each)) for each in _functions_in(scheduler, set())]
    memo.update((id(function), hull) for function, hull in pairs)
    for function, hull in pairs:  # now that each finds the others, and itself
        hull.__defaults__ = _copied(function.__defaults__, memo)
        hull.__kwdefaults__ = _copied(function.__kwdefaults__, memo)
        cells = zip(function.__closure__ or (), hull.__closure__ or (), strict=True)
        for cell, own in cells:
            for content in _contents(cell):
                own.cell_contents = _copied(content, memo)
    return copy.deepcopy(scheduler, memo)


def bound_values(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of closure and defaults; nothing of what is no function."""
    if not isinstance(function, FunctionType):
        return
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield from ((name, content) for content in _contents(cell))


def _functions_in(value: Any, seen: set[int]) -> Iterator[FunctionType]:
    if id(value) in seen:
        return
    seen.add(id(value))
    inside: Any = ()
    if isinstance(value, FunctionType):
        yield value
        inside = [each for cell in value.__closure__ or () for each in _contents(cell)]
    elif isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, dict):
        inside = list(value.values())
    elif isinstance(value, partial):
        inside = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, LRScheduler):
        inside = list(vars(value).values())
    for each in inside:
        yield from _functions_in(each, seen)


def _hull_of(function: FunctionType) -> FunctionType:
    cells = tuple(CellType() for _ in function.__closure__ or ())
    code, names = function.__code__, function.__globals__
    return FunctionType(code, names, function.__name__, None, cells)


def _contents(cell: CellType) -> list[Any]:
    """Return what is in a cell; nothing where it is still to be set."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    return copy.deepcopy(value, memo) if _is_plain(value, [MOST_VALUES]) else value


def _is_plain(value: Any, left: list[int]) -> bool:
    """Whether it is made of numbers, texts and functions alone, and is small."""
    left[0] -= 1
    if value is None or isinstance(value, (int, float, str, bytes, FunctionType)):
        return True
    if left[0] < 0:
        return False
    if isinstance(value, partial):
        value = [value.func, value.args, value.keywords]
    if isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, "__dict__"):
        value = list(vars(value).values())
    elif not isinstance(value, (list, tuple, set)):
        return False
    return all(_is_plain(each, left) for each in value)
