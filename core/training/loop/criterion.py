"""What a loss keeps: the modules and parameters behind ``loss_fn`` or ``step_fn``.

They belong to the run as the model does: an optimizer may move them, and buffers may
count. An optimizer or a random generator that is found there does not: who wants to
warn of it can ask for it. They are looked for where a function can hold them: itself a
module or a method of one, arguments of a ``functools.partial``, attributes of a
callable object, closures, defaults, and globals that the function reads; lists and
mappings of them included, and of objects, namespaces, classes and modules of Python
the attributes that it reads.

They are looked up anew where their state is asked for: a teacher may be replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.device import move
from training.loop.forward_checks import name_of
from training.modules.frozen_weights import tensor_version
from training.modules.plain_names import load_weights, some, weights_of
from training.modules.reachable import (
    Found,
    joined,
    kept_by,
    near,
    reachable,
)
from training.modules.unsaved_buffers import holds_numbers

Held = nn.Module | Tensor

log = logging.getLogger(__name__)


class Criterion:
    """The state of a run's loss beside the model's own.

    Args:
        function: ``loss_fn`` or ``step_fn``; None: nothing is kept.
        model: its own weights are left out.
        callbacks: what they hold is in their states.
    Attributes:
        function: as passed.
        module: the module that ``function`` is or is a method of, unless that is (a
            part of) the model or contains it; else None.
        optimizers: those that ``function``, a module that it holds, or the model has,
            by place; the run's own may be among them.
        generators: random generators that they have, by place; not those of a module
            that saves an extra state.
        name: of the function, or of its class; of a model that returns its own loss.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None,
        model: nn.Module,
        callbacks: Iterable[Any] = (),
    ) -> None:
        owner = getattr(function, "__self__", function)
        self._model, self.function, self._callbacks = model, function, callbacks
        self.name = "the model's own" if function is None else name_of(function)
        #: Place -> mark of what came to be there in a run, if training moves it.
        self._late: dict[str, Any] = {}
        self._take_anew()
        self.module: nn.Module | None = None
        # Else it would be moved, and put into modes, a second time.
        own = set(model.modules())
        if isinstance(owner, nn.Module) and own.isdisjoint(owner.modules()):
            self.module = owner

    def _take_anew(self) -> None:
        """Take what is found as what the run begins with."""
        self._held, self.optimizers, self.generators = self._found()
        # What comes up in a run is made by it, as it will be where it is resumed.
        self._held = {n: h for n, h in self._held.items() if n not in self._late}
        self._told: set[str] = set()

    def _found(
        self,
    ) -> tuple[dict[str, Held], dict[str, Optimizer], dict[str, Any]]:
        """Return what is to be saved, optimizers and generators, by place."""
        held_at: dict[str, Held] = {}
        optimizers: dict[str, Optimizer] = {}
        generators: dict[str, Any] = {}
        model, own = self._model, set[Any](self._model.modules())
        found = reachable(self.function, self._callbacks)
        # By the names that they had before attributes of objects were looked at, too.
        self._near = near(self.function)
        found = [(self._near.get(id(held), place), held) for place, held in found]
        for place, held in [*kept_by(model, "model"), *found]:
            if _is_plain(held):
                continue
            if not isinstance(held, Held):
                is_stepped = isinstance(held, Optimizer)
                others: dict[str, Any] = optimizers if is_stepped else generators
                if all(held is not known for known in others.values()):
                    others.setdefault(place, held)
            # A step_fn may close over the model or its parts: those are saved with it.
            elif held not in own:
                held_at.setdefault(place, held)
        return held_at, optimizers, generators

    def _look_again(self) -> None:
        """Go by what is at its places now, and tell of what cannot be resumed so."""
        found, *_ = self._found()
        before, own = self._held, set[Any](self._model.modules())
        fit = {at for at, held in before.items() if _are_alike(found.get(at), held)}
        self._held = {at: found[at] if at in fit else before[at] for at in before}
        self._tell(
            "the loss has nothing of its own any more, or weights of other names or "
            "shapes, at %s: checkpoints keep what was there before, and a resumed run "
            "begins with that; have weights of one shape there for the whole run",
            # What has become a part of the model is saved with that.
            {at for at in before.keys() - fit if before[at] not in own},
        )
        # Tensors alone are inputs that something is optimized over, as a rule.
        late = {at: held for at, held in found.items() if at not in before}
        marks = {n: _marks(h) for n, h in late.items() if isinstance(h, nn.Module)}
        # At first sight it may be what is loaded when it is needed, and then again.
        self._tell(
            "training moves or replaces what the loss has at %s, which no checkpoint "
            "holds, since it was not there when the trainer's first run began: a "
            "resumed run is another one; have it there before that",
            {at for at, mark in marks.items() if self._late.get(at, mark) != mark},
        )
        self._late |= marks

    def _tell(self, message: str, places: set[str]) -> None:
        """Warn of places, once of each in a run."""
        if new := sorted(joined("loss", at) for at in places - self._told):
            log.warning(message, some(new))
        self._told |= places

    def modules(self) -> dict[str, nn.Module]:
        """Return ``{"loss": module}`` for a loss that is a module of its own."""
        return {} if self.module is None else {"loss": self.module}

    def held_modules(self) -> dict[str, nn.Module]:
        """Return every module that the function is or holds, by place below "loss"."""
        self._look_again()
        held = self._modules_held()
        return {joined("loss", place): module for place, module in held.items()}

    def begin(self, own: Optimizer) -> list[Any]:
        """Begin a run with what is there now.

        Returns: what computing the loss may move: modules, optimizers, generators. Not
            ``own``: that may have a large state, and no step function has to step it.
        """
        self._take_anew()
        others = [each for each in self.optimizers.values() if each is not own]
        return [*self._modules_held().values(), *others, *self.generators.values()]

    def _modules_held(self) -> dict[str, nn.Module]:
        return {n: h for n, h in self._held.items() if isinstance(h, nn.Module)}

    def names_behind_attributes(self) -> set[str]:
        """Return names of what only an attribute of an object leads to."""
        places = [place for place in self._held if place not in self._near.values()]
        names = self.tensors()
        return {
            n for n in names if any(n == at or n.startswith(f"{at}.") for at in places)
        }

    def reached(self, passed_over: Iterable[Any]) -> Found:
        """Return what can be reached from the function now, below the function's name.

        Args:
            passed_over: objects that others save.
        """
        found = reachable(self.function, passed_over)
        return [(joined(self.name, place), held) for place, held in found]

    def to(self, device: torch.device) -> None:
        """Move the loss's own module; what a function merely uses is its owner's."""
        if self.module is not None:
            move(self.module, device, "loss")

    def tensors(self) -> dict[str, Any]:
        """Return parameters and buffers (the objects) and extra state, by name."""
        # By identity: what loss and model share is saved once, as the model's.
        known = {id(value) for value in self._model.parameters()}
        known.update(id(value) for value in self._model.buffers())
        found: dict[str, Any] = {}
        for place, held in self._held.items():
            for name, value in _tensors_of(held).items():
                if id(value) not in known:
                    found[joined(place, name)] = value
                    known.add(id(value))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the values by name; tensors are not copied."""
        self._look_again()
        return {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in self.tensors().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values; names and shapes must have been compared."""
        self._look_again()
        for place, held in self._held.items():
            if isinstance(held, Tensor):
                if place in state:
                    # In place: an optimizer may hold this very tensor.
                    held.copy_(state[place])
                continue
            own = {
                name: state[full]
                for name in weights_of(held)
                if (full := joined(place, name)) in state
            }
            load_weights(held, own, strict=False)


def _is_plain(value: Any) -> bool:
    # What was computed belongs to a graph of some step, not to a state.
    if isinstance(value, Tensor):
        return not (value.is_leaf and value.requires_grad)
    return type(value) in (int, float)


def _tensors_of(held: Held) -> dict[str, Any]:
    return {"": held} if isinstance(held, Tensor) else weights_of(held, keep_vars=True)


def _are_alike(now: Held | None, before: Held) -> bool:
    """Whether a state of one could be loaded into the other."""
    return now is before or (now is not None and _shapes(now) == _shapes(before))


def _shapes(held: Held) -> dict[str, Any]:
    """Return name -> shape; None for what a module saves beside its tensors."""
    return {n: getattr(each, "shape", None) for n, each in _tensors_of(held).items()}


def _marks(held: nn.Module) -> list[Any]:
    """Return what tells whether something is another one, or was written to."""
    values = [each for each in _tensors_of(held).values() if isinstance(each, Tensor)]
    return [(id(each), *tensor_version(each)) for each in values if holds_numbers(each)]
