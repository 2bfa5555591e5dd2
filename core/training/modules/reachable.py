"""What can be reached from a function: modules, parameters, optimizers, generators."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import sysconfig
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.rng import is_generator

#: Their functions are not read for what they hold; nor are ours.
LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")),
    sysconfig.get_path("platlib"),
    str(Path(__file__).parents[1]),
)
#: What an instruction is called that reads a variable or an attribute.
READS = {"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD"}
#: Longer lists and mappings are data, not parts of a loss.
MOST_ITEMS = 100
#: And lists in lists.
MOST_LEVELS = 4
CONTAINERS = (list, tuple, dict)
NUMBERS = (int, float)

#: (place, what is there), and the names of attributes and variables that are read.
Found = tuple[list[tuple[str, Any]], Collection[str]]


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


def held_in(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, what is there) for all that counts in lists and mappings."""
    if _counts(value):
        yield place, value
    elif place.count(".") < MOST_LEVELS:  # deeper is data, or a list that is in itself
        for name, item in _items_of(value):
            yield from held_in(item, joined(place, name))


def own_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes that torch's own class does not have.

    None of one that saves by itself: it has a ``state_dict`` of its own.
    """
    if type(optimizer).state_dict is not Optimizer.state_dict:
        return {}
    return {
        name: value
        for name, value in vars(optimizer).items()
        if name not in ("defaults", "param_groups", "state")
        and not name.startswith("_optimizer_")
    }


@functools.lru_cache(maxsize=1000)
def names_read_by(cls: type) -> frozenset[str]:
    """Return the attributes and variables that methods of a class, or a base, read."""
    methods = [
        each
        for base in cls.__mro__
        for each in vars(base).values()
        if isinstance(each, FunctionType) and not _is_library(each)
    ]
    return frozenset(
        itertools.chain.from_iterable(_names_read(each.__code__) for each in methods)
    )


def reachable(function: Any, passed_over: Iterable[Any] = ()) -> Found:
    """Return (place, what is there) for all that counts, and the names that are read.

    What counts is modules, optimizers, random generators, tensors and numbers. Of an
    object, a namespace, a class or a module of Python it is what one of the functions
    on the way reads by name; of what is called itself it is all attributes.

    Args:
        function: which is called, or None.
        passed_over: objects that are not looked into.
    """
    read: set[str] = set()
    while True:
        known = len(read)
        found = list(_search(function, set(map(id, passed_over)), read))
        if len(read) == known:  # else a function has named more of what was seen
            return found, read


def _search(function: Any, seen: set[int], read: set[str]) -> Iterator[tuple[str, Any]]:
    queue = deque([("", function)])
    while queue:  # the nearest places first: their names are the shorter ones
        place, value = queue.popleft()
        if type(value) in NUMBERS:  # one object may be many numbers
            yield place, value
        elif id(value) not in seen:
            # Closures and attributes may lead in a circle.
            seen.add(id(value))
            if _counts(value):
                yield place, value
                if isinstance(value, nn.Module):
                    yield from kept_by(value, place)
                continue
            for name, item in _parts_of(value, not place, read):
                queue.append((joined(place, name), item))


def _items_of(value: Any) -> list[tuple[str, Any]]:
    """Return (name, item) of a short list or mapping."""
    if not isinstance(value, CONTAINERS) or len(value) > MOST_ITEMS:
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [(str(name), item) for name, item in items]


def _counts(value: Any) -> bool:
    is_part = isinstance(value, (nn.Module, Optimizer, Tensor))
    return is_part or type(value) in NUMBERS or is_generator(value)


def _parts_of(
    value: Any, is_function: bool, read: set[str]
) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield "", value.func
        yield from ((str(number), item) for number, item in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, FunctionType):
        # What a library reads is its own affair, and far too much to look at.
        if is_function or not _is_library(value):
            read.update(_names_read(value.__code__))
            yield from _variables(value)
    elif isinstance(value, CONTAINERS):
        yield from _items_of(value)
    elif not _is_opaque(value):
        own = getattr(value, "__dict__", {})
        names = own if is_function else {"__wrapped__", *read}
        yield from [(name, item) for name, item in own.items() if name in names]
        cls = value if isinstance(value, type) else type(value)
        for name in ("__call__", *sorted(read)):
            yield "", _function(cls, name)


def _is_library(function: FunctionType) -> bool:
    return function.__code__.co_filename.startswith(LIBRARIES)


def _is_opaque(value: Any) -> bool:
    """Whether nothing in it is looked for: what Python, a library or we have made."""
    if isinstance(value, ModuleType):
        return (getattr(value, "__file__", None) or LIBRARIES[0]).startswith(LIBRARIES)
    made_by = type(value).__module__.partition(".")[0]
    return made_by in ("builtins", "training") and not isinstance(value, type)


def _function(cls: type, name: str) -> Any:
    """Return the function behind a method or property of a class, None without one."""
    found = inspect.getattr_static(cls, name, None)
    found = getattr(found, "__func__", getattr(found, "fget", found))
    return found if isinstance(found, FunctionType) else None


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
    for name in _names_read(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


@functools.lru_cache(maxsize=1000)
def _names_read(code: CodeType) -> tuple[str, ...]:
    """Return the variables and attributes that a function, or one in it, reads."""
    # Not co_names: those are the names of what is only written, too.
    read = [each.argval for each in dis.get_instructions(code) if each.opname in READS]
    # Lambdas inside have code of their own.
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return tuple(dict.fromkeys(itertools.chain(read, *map(_names_read, inner))))
