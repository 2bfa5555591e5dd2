"""Name what modules, an optimizer or a loss move in Python: in no checkpoint."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.rng import is_generator
from training.modules.bytecode import methods_of
from training.modules.flow import Place
from training.modules.frozen_weights import WHOLE, mark_of, sample_of
from training.modules.plain_names import plain_name, some
from training.modules.reachable import (
    NUMBERS,
    Found,
    has_hooks,
    held_in,
    inside_of,
    is_of_numpy,
    joined,
    own_attributes,
)
from training.modules.unsaved_buffers import holds_numbers
from training.modules.updates import Updates, follow, updates_by

log = logging.getLogger(__name__)

#: What torch keeps in each module: it is saved, or no number.
OF_MODULES = frozenset(vars(nn.Module()))

#: (place, what is there), and what is updated there.
Held = tuple[list[tuple[str, Any]], Updates]


class UnsavedNumbers:
    """The numbers and tensors among plain attributes, as they are when it is made.

    Not those of torch's own classes, nor of a module or an optimizer that saves more
    than torch does, by methods or hooks, nor of a metric that is saved.
    Optimizers and random generators in the optimizer are warned of at once.

    Args:
        modules: part -> module, such as the model.
        optimizer: that of the run.
        beside: returns name of a function -> what can be reached from it.
        of_model: what these functions call the model, if they are given it.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer | None = None,
        beside: Callable[[], Mapping[str, Found]] = dict,
        of_model: str = "",
    ) -> None:
        self._modules, self._optimizer, self._beside = dict(modules), optimizer, beside
        self._of_model = of_model
        if isinstance(optimizer, Optimizer):
            _warn_of_inner(optimizer)
        wholes = self._modules.values()
        kinds: set[type] = {type(m) for whole in wholes for m in whole.modules()}
        # Together, so that each file is read once.
        follow(code for kind in kinds for code in methods_of(kind))
        self._before = self._marks()
        self._moved: set[tuple[str, int]] = set()
        self._told: set[str] = set()

    def warn_of_moved(self) -> None:
        """Warn, once of each, of those that have moved between saves, twice in a row.

        Once alone may be a cache that has been filled; it is filled again. Waits for
        the device once for each tensor among them.
        """
        now = self._marks()
        moved = {
            name for name, value in now.items() if self._before.get(name) != value
        } & self._before.keys()
        self._before = now
        if not moved:  # nothing was trained since the last save
            return
        again = sorted({name for name, _ in moved & self._moved} - self._told)
        if again:
            log.warning(
                "training moves numbers that no checkpoint holds, since they are plain "
                "attributes or variables: %s; a resumed run begins with others, and is "
                "another run where they decide about training; keep each of a module "
                "in a buffer, or return it from get_extra_state(), each of the "
                "optimizer in a group or in its state, each of a step_fn or loss_fn in "
                "a buffer of a module that it uses, and call persistent(True) of a "
                "metric; what is only logged needs nothing, nor what a callback sets "
                "anew, from the step or from its own state",
                some(again),
            )
            self._told.update(again)
        self._moved = moved

    def _marks(self) -> dict[tuple[str, int], Any]:
        """Return what tells whether each has moved, by name.

        And by object for tensors that no function reads and then replaces: an input or
        a loss that is kept there is another one each time, and nothing comes of it.
        """
        # Of parts of one, as of a sharded model, nobody can have another view.
        whole = [each for each in self._saved() if type(each) in WHOLE]
        saved = {_storage_of(each) for each in whole if holds_numbers(each)}
        marks: dict[tuple[str, int], Any] = {}
        for holder, (found, updates) in self._holders():
            for place, value in found:
                name = f"{holder}.{place}"
                counts = updates.counts(place)
                if isinstance(value, Tensor):
                    is_plain = _is_plain(value, updates.may_have_graph(place))
                    if is_plain and _storage_of(value) not in saved:
                        of = 0 if counts else id(value)
                        marks[name, of] = _Mark(value, counts)
                elif is_of_numpy(value) and counts:
                    # Of another size it is another one, as a cache.
                    marks[name, value.size] = value.tobytes()
                # NaN, which differs from itself, is none.
                elif type(value) in NUMBERS and counts and value == value:
                    marks[name, 0] = value
        return marks

    def _saved(self) -> Iterator[Tensor]:
        """Yield what is saved, and gradients: another tensor may be a view of them."""
        for module in self._modules.values():
            for parameter in module.parameters():
                yield parameter
                if parameter.grad is not None:
                    yield parameter.grad
            yield from module.buffers()
        for state in getattr(self._optimizer, "state", {}).values():
            yield from (each for _, each in held_in(state) if isinstance(each, Tensor))

    def _holders(self) -> Iterator[tuple[str, Held]]:
        """Yield name and attributes of each that no checkpoint asks for its numbers."""
        beside = self._beside()
        step = updates_by({code for _, codes in beside.values() for code in codes})
        # A step_fn is given the model, and a module has those in it: they may carry
        # something there.
        by_step = step if self._of_model else Updates()
        detached = Updates(detached=step.detached)
        for part, whole in self._modules.items():
            around: dict[str, Updates] = {}
            for path, module in whole.named_modules():
                outer, _, last = path.rpartition(".")
                by_others = around.get(outer, by_step)
                cls: type = type(module)
                around[path] = by_others | _updates_by(cls)
                by_others = by_others.on(last or self._of_model)
                updates = by_others | detached | _updates_by(cls)
                kept = _saves_more(module) or _is_kept(module)
                own = {} if kept else _own_of(module, updates)
                if own:
                    yield joined(part, plain_name(whole, path)), _held_by(own, updates)
        yield from ((name, (found, step)) for name, (found, _) in beside.items())
        optimizer = self._optimizer
        if isinstance(optimizer, Optimizer) and not _is_of_torch(optimizer):
            kind: type = type(optimizer)
            yield "optimizer", _held_by(own_attributes(optimizer), _updates_by(kind))


@functools.lru_cache(maxsize=1000)
def _updates_by(cls: type) -> Updates:
    return updates_by(methods_of(cls))


def _warn_of_inner(optimizer: Optimizer) -> None:
    found, _ = _held_by(own_attributes(optimizer), Updates())
    inner = [
        place
        for place, each in found
        if is_generator(each)
        or (isinstance(each, Optimizer) and not _is_merged(each, optimizer))
    ]
    if inner:
        log.warning(
            "the %s keeps %s, whose state no checkpoint holds, so that a resumed run "
            "is another one: return it from its state_dict(), and take it back in "
            "load_state_dict()",
            *(type(optimizer).__name__, some(inner)),
        )


def _is_merged(inner: Optimizer, outer: Optimizer) -> bool:
    """Whether the state of the outer optimizer has all that the inner one's has.

    Before a step there is none: then one that loads in a way of its own is trusted
    with the states of its parameters.
    """
    if inner.state is outer.state:
        return True
    if any(inner.state.values()):
        return all(
            value is outer.state.get(parameter, {}).get(name)
            for parameter, state in inner.state.items()
            for name, value in state.items()
        )
    own = {each for group in outer.param_groups for each in group["params"]}
    steps = {each for group in inner.param_groups for each in group["params"]}
    takes_back = type(outer).load_state_dict is not Optimizer.load_state_dict
    return takes_back and steps <= own


def _held_by(attributes: Mapping[str, Any], updates: Updates) -> Held:
    """Return what is in attributes; whoever counts in one of them reads it somehow."""
    numbers = {Place((), n) for n, v in attributes.items() if type(v) in NUMBERS}
    # One by one: a long list is data, but a class may have many attributes.
    found = [
        each
        for name, value in attributes.items()
        for each in (*held_in(value, name), *held_in(inside_of(value), name))
    ]
    return found, updates | Updates(frozenset(numbers))


def _own_of(module: nn.Module, updates: Updates) -> dict[str, Any]:
    """Return the attributes beside what is saved.

    Of torch's own numbers, and what others update: the rest it makes anew.
    """
    own = {n: v for n, v in vars(module).items() if n not in OF_MODULES}
    if not _is_of_torch(module):
        return own
    counted = {n: v for n, v in own.items() if type(v) in NUMBERS or updates.counts(n)}
    return {n: v for n, v in counted.items() if not n.startswith("_")}


def _is_of_torch(holder: Any) -> bool:
    return type(holder).__module__.startswith("torch.")


def _saves_more(module: nn.Module) -> bool:
    """Whether it saves more than its tensors, and takes it back: by methods or hooks.

    Not by those of one side alone, such as one that renames what is loaded, nor by
    those that torch puts there, as its ``spectral_norm`` does.
    """

    def has_own(name: str) -> bool:
        return getattr(type(module), name) is not getattr(nn.Module, name)

    saves = has_own("_save_to_state_dict") or has_hooks(module._state_dict_hooks)
    loads = (
        has_own("_load_from_state_dict")
        or has_hooks(module._load_state_dict_pre_hooks)
        or has_hooks(module._load_state_dict_post_hooks)
    )
    whole = has_own("state_dict") and has_own("load_state_dict")
    return has_own("get_extra_state") or whole or (saves and loads)


def _is_kept(module: nn.Module) -> bool:
    """Whether it is a metric of torchmetrics that is in its ``state_dict``."""
    flags = vars(module).get("_persistent")
    return isinstance(flags, dict) and bool(flags) and all(flags.values())


def _is_plain(value: Tensor, may_have_graph: bool) -> bool:
    # One that requires gradients is saved, or was computed in some step.
    is_computed = may_have_graph and not value.is_leaf
    may_move = is_computed or not value.requires_grad
    return type(value) in WHOLE and may_move and holds_numbers(value)


def _storage_of(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


class _Mark:
    """Tells whether a tensor was written to, or replaced by one of other numbers.

    The latter only where it counts what is at the place of the tensor.
    """

    def __init__(self, value: Tensor, counts: bool) -> None:
        # Another one may get the id of one that is gone.
        self._object, self._counts = weakref.ref(value), counts
        self._mark = mark_of(value)
        self._sample = value.shape, sample_of(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Mark):
            return NotImplemented
        if self._object() is other._object():
            return self._mark == other._mark
        if not self._counts:
            return True
        # Of another size it is a cache, which is filled again as it is needed.
        same_shape = self._sample[0] == other._sample[0]
        return not same_shape or torch.equal(self._sample[1], other._sample[1])

    __hash__ = None  # type: ignore[assignment]
