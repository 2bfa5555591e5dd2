"""What a loss keeps: the modules and parameters behind ``loss_fn`` or ``step_fn``.

They belong to the run as the model does: an optimizer may move them, and buffers may
count. An optimizer or a random generator that is found there does not: who wants to
warn of it can ask for it. They are looked for where a function can hold them: itself a
module or a method of one, arguments of a ``functools.partial``, attributes of a
callable object, closures, defaults, and globals that the function reads; lists and
mappings of them included, and of objects, namespaces, classes and modules of Python
the attributes that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.device import move
from training.loop.forward_checks import name_of
from training.modules.plain_names import load_weights, weights_of
from training.modules.reachable import (
    Found,
    is_of_numpy,
    joined,
    kept_by,
    near,
    reachable,
)

Held = nn.Module | Tensor


class Criterion:
    """The state of a run's loss beside the model's own.

    Args:
        function: ``loss_fn`` or ``step_fn``; None: nothing is kept.
        model: its own weights are left out.
        callbacks: what they hold is in their states.
    Attributes:
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
        self._model = model
        self.name = "the model's own" if function is None else name_of(function)
        self._held: dict[str, Held] = {}
        own: set[Any] = set(model.modules())
        self.optimizers: dict[str, Optimizer] = {}
        self.generators: dict[str, Any] = {}
        self._function = function
        found, _ = reachable(function, callbacks)
        # By the names that they had before attributes of objects were looked at, too.
        self._near = near(function)
        found = [(self._near.get(id(held), place), held) for place, held in found]
        for place, held in [*kept_by(model, "model"), *found]:
            if _is_plain(held):
                continue
            if not isinstance(held, Held):
                is_stepped = isinstance(held, Optimizer)
                others = self.optimizers if is_stepped else self.generators
                if all(held is not known for known in others.values()):
                    others.setdefault(place, held)
            # A step_fn may close over the model or its parts: those are saved with it.
            elif held not in own:
                self._held.setdefault(place, held)
        self.module: nn.Module | None = None
        # Else it would be moved, and put into modes, a second time.
        if isinstance(owner, nn.Module) and own.isdisjoint(owner.modules()):
            self.module = owner

    def modules(self) -> dict[str, nn.Module]:
        """Return ``{"loss": module}`` for a loss that is a module of its own."""
        return {} if self.module is None else {"loss": self.module}

    def held_modules(self) -> dict[str, nn.Module]:
        """Return every module that the function is or holds, by place below "loss"."""
        return {
            joined("loss", place): held
            for place, held in self._held.items()
            if isinstance(held, nn.Module)
        }

    def beside(self, own: Optimizer) -> list[Any]:
        """Return what computing the loss may move: modules, optimizers, generators.

        Not ``own``: that may have a large state, and no step function has to step it.
        """
        others = [each for each in self.optimizers.values() if each is not own]
        return [*self.held_modules().values(), *others, *self.generators.values()]

    def far_names(self) -> set[str]:
        """Return names of what only an attribute of an object leads to."""
        places = [place for place in self._held if place not in self._near.values()]
        names = self.tensors()
        return {
            n for n in names if any(n == at or n.startswith(f"{at}.") for at in places)
        }

    def reached(self, passed_over: Iterable[Any]) -> dict[str, Found]:
        """Return what can be reached from the function now, by the function's name.

        Args:
            passed_over: objects that others save.
        """
        return {self.name: reachable(self._function, passed_over)}

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
            inside = (
                {"": held}
                if isinstance(held, Tensor)
                else weights_of(held, keep_vars=True)
            )
            for name, value in inside.items():
                if id(value) not in known:
                    found[joined(place, name)] = value
                    known.add(id(value))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the values by name; tensors are not copied."""
        return {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in self.tensors().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values; names and shapes must have been compared."""
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
    return type(value) in (int, float) or is_of_numpy(value)
