"""What can be reached from a function: modules, parameters, optimizers, generators."""

from __future__ import annotations

import dis
import functools
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.rng import is_generator

#: Their functions are not read for what they hold.
LIBRARIES = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
#: Longer lists and mappings are data, not parts of a loss.
MOST_ITEMS = 100


def joined(place: str, name: str) -> str:
    """Return the dotted name of something at a place; either may be empty."""
    return f"{place}.{name}" if place and name else place or name


def kept_by(module: nn.Module, place: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, optimizer or generator) of a module's attributes."""
    for inner, part in module.named_modules():
        # What it saves by itself is its own.
        saves = type(part).get_extra_state is not nn.Module.get_extra_state
        for name, value in vars(part).items():
            if isinstance(value, Optimizer) or (not saves and is_generator(value)):
                yield joined(joined(place, inner), name), value


def search(value: Any, place: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield (place, what is held) for what can be reached from a function."""
    if id(value) in seen:
        return
    # Closures and attributes may lead in a circle.
    seen.add(id(value))
    is_held = isinstance(value, (nn.Module, Optimizer)) or _is_leaf(value)
    if is_held or is_generator(value):
        yield place, value
        if isinstance(value, nn.Module):
            yield from kept_by(value, place)
        return
    for name, item in _reachable(value, is_function=not place):
        yield from search(item, joined(place, name), seen)


def _is_leaf(value: Any) -> bool:
    # What was computed belongs to a graph of some step, not to a state.
    return isinstance(value, Tensor) and value.is_leaf and value.requires_grad


def _reachable(value: Any, is_function: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield "", value.func
        yield from ((str(number), item) for number, item in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, FunctionType):
        # What a library reads is its own affair, and far too much to look at.
        if is_function or not value.__code__.co_filename.startswith(LIBRARIES):
            yield from _variables(value)
    elif isinstance(value, (list, tuple, dict)):
        if len(value) <= MOST_ITEMS:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            yield from ((str(name), item) for name, item in items)
    elif is_function and hasattr(value, "__dict__"):  # a callable object, its method
        yield from vars(value).items()
        yield "", vars(type(value)).get("__call__")


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of closure, defaults and the globals that are read."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for number, item in enumerate(function.__defaults__ or ()):
        yield f"default{number}", item
    yield from (function.__kwdefaults__ or {}).items()
    for name in _globals_read(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _globals_read(code: CodeType) -> Iterator[str]:
    for each in dis.get_instructions(code):
        # Not co_names: those are the names of attributes, too.
        if each.opname == "LOAD_GLOBAL":
            yield each.argval
    # Lambdas inside have code of their own.
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_read(constant)
