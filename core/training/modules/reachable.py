"""What can be reached from a function: modules, parameters, optimizers, generators."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.rng import is_generator
from training.modules.bytecode import LIBRARIES, is_library, names_in
from training.plain import is_number

#: More than this is no longer what a loss is made of.
MOST_OBJECTS = 10_000
#: Longer lists and mappings are data, not parts of a loss.
MOST_ITEMS = 100
#: And lists in lists.
MOST_LEVELS = 4
CONTAINERS = (list, tuple, dict, deque)
#: What torch keeps in each module: it is saved, or no number.
OF_MODULES = frozenset(vars(nn.Module()))

#: (place, what is there), each once.
Found = list[tuple[str, Any]]


def counts(value: Any) -> bool:
    """Whether it is a module, optimizer, generator, tensor or number."""
    is_part = isinstance(value, (nn.Module, Optimizer, Tensor))
    return is_part or is_number(value) or is_generator(value)


def joined(place: str, name: str) -> str:
    """Return the dotted name of something at a place; either may be empty."""
    return f"{place}.{name}" if place and name else place or name


def kept_by(module: nn.Module, place: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, optimizer or generator) of a module's attributes."""
    for inner, part in module.named_modules():
        # What it saves by itself is its own.
        saves = type(part).get_extra_state is not nn.Module.get_extra_state
        own = [(n, value) for n, value in vars(part).items() if n not in OF_MODULES]
        for name, value in own:
            if isinstance(value, Optimizer) or (not saves and is_generator(value)):
                yield joined(joined(place, inner), name), value


def held_in(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, what is there) for all that counts in lists and mappings."""
    if counts(value):
        yield place, value
    elif place.count(".") < MOST_LEVELS:  # deeper is data, or a list that is in itself
        for name, item in _items_of(value):
            yield from held_in(item, joined(place, name))


def near(function: Any) -> dict[int, str]:
    """Return id -> place of what is found without looking into objects."""
    found = _Search(function, is_far=False).found()
    return {id(each): at for at, each in found if not is_number(each)}


def reachable(function: Any, passed_over: Iterable[Any] = ()) -> Found:
    """Return (place, what is there) for all that counts.

    What counts is modules, optimizers, random generators, tensors and numbers. Of an
    object, a namespace, a class or a module of Python it is what one of the functions
    on the way reads by name; of what is called itself it is all attributes.

    Args:
        function: which is called, or None.
        passed_over: objects that are not looked into.
    """
    search = _Search(function, passed_over)
    while True:
        known = len(search.read)
        found = list(search.found())
        if len(search.read) == known:  # else a function has named more of what was seen
            return found


class _Search:
    """Looks for what can be reached; ``read``, of names, grows as it does."""

    def __init__(
        self, function: Any, passed_over: Iterable[Any] = (), is_far: bool = True
    ) -> None:
        self._function, self._is_far = function, is_far
        self._passed = set(map(id, passed_over))
        self.read: set[str] = set()

    def found(self) -> Iterator[tuple[str, Any]]:
        """Yield (place, what is there), each once."""
        # Closures and attributes may lead in a circle.
        seen, stack = set(self._passed), [iter([("", self._function)])]
        while stack and len(seen) < MOST_OBJECTS:
            place, value = next(stack[-1], (None, None))
            if place is None:
                stack.pop()
            elif is_number(value):  # one object may be many numbers
                yield place, value
            elif id(value) not in seen:
                seen.add(id(value))
                if counts(value):
                    yield place, value
                    if isinstance(value, nn.Module):
                        yield from kept_by(value, place)
                    continue
                parts = list(self._parts_of(value, is_function=not place))
                stack.append(iter([(joined(place, n), part) for n, part in parts]))

    def _parts_of(self, value: Any, is_function: bool) -> Iterator[tuple[str, Any]]:
        if isinstance(value, functools.partial):
            yield "", value.func
            yield from ((str(number), item) for number, item in enumerate(value.args))
            yield from value.keywords.items()
        elif isinstance(value, MethodType):
            yield "", value.__self__
            yield "", value.__func__
        elif isinstance(value, FunctionType):
            # What a library reads is its own affair, and far too much to look at.
            if is_function or not is_library(value.__code__.co_filename):
                names, read = names_in(value.__code__)
                self.read |= read
                yield from _variables(value, names)
                yield from [(n, v) for n, v in vars(value).items() if n in self.read]
        elif isinstance(value, CONTAINERS):
            yield from _items_of(value)
        elif (self._is_far or is_function) and not _is_opaque(value):
            own = getattr(value, "__dict__", {})
            names_of = own if is_function else {"__wrapped__", *self.read}
            yield from [(name, item) for name, item in own.items() if name in names_of]
            cls = value if isinstance(value, type) else type(value)
            for name in ("__call__", *sorted(self.read if self._is_far else ())):
                yield "", _function(cls, name)


def _items_of(value: Any) -> list[tuple[str, Any]]:
    """Return (name, item) of a short list or mapping."""
    if not isinstance(value, CONTAINERS) or len(value) > MOST_ITEMS:
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [(str(name), item) for name, item in items]


def _is_opaque(value: Any) -> bool:
    """Whether nothing in it is looked for: what Python, a library or we have made."""
    if isinstance(value, ModuleType):
        return is_library(getattr(value, "__file__", None) or LIBRARIES[0])
    made_by = type(value).__module__.partition(".")[0]
    return made_by in ("builtins", "training") and not isinstance(value, type)


def _function(cls: type, name: str) -> Any:
    """Return the function behind a method or property of a class, None without one."""
    found = inspect.getattr_static(cls, name, None)
    found = getattr(found, "__func__", getattr(found, "fget", found))
    return found if isinstance(found, FunctionType) else None


def _variables(
    function: FunctionType, names: Iterable[str]
) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of closure, defaults and the globals of these names."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for number, item in enumerate(function.__defaults__ or ()):
        yield f"default{number}", item
    yield from (function.__kwdefaults__ or {}).items()
    for name in names:
        if name in function.__globals__:
            yield name, function.__globals__[name]
