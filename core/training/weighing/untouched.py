"""Run a model, and leave all as it was: weights, buffers, modes, random generators."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from training.errors import ConfigError
from training.feed.unsaved_generators import drawn_in, generators_in
from training.hardware.rng import load_rng_state, rng_state
from training.modules.plain_names import is_expanded
from training.modules.train_mode import frozen_modules

#: Bytes of parameters up to which copies are kept: some losses move a teacher.
MOST_BYTES = 2**31


class Kept:
    """What passes through ``modules`` may move.

    Parameters are among it, since a forward pass may move them: those of a teacher that
    follows its student. They cost a copy, freed before the first step. So is ``.grad``:
    a step function may call ``backward`` for what another optimizer steps. And numbers
    and flags among a module's attributes, and its extra state where it has one.

    Args:
        modules: the model, and what a loss holds beside it; parts are included.
        loader: its generators and those of its data set and samplers are kept, too.
        keeps_parameters: False: nothing that is done moves them.
        optimizers: that a step function may step by itself.
        generators: that it may draw from, beside those of modules.
    Attributes:
        modules: all of ``modules`` and in them.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        loader: Any = None,
        keeps_parameters: bool = True,
        optimizers: Sequence[Optimizer] = (),
        generators: Iterable[Any] = (),
    ) -> None:
        self.modules = list(
            dict.fromkeys(m for each in modules for m in each.modules())
        )
        self._modes = [(m, m.training) for m in self.modules]
        self._buffers = [(m, _copies_of(m._buffers)) for m in self.modules]
        self._numbers = [(m, _numbers_of(m)) for m in self.modules]
        extra = filter(_has_extra_state, self.modules)
        self._extra = [(m, copy.deepcopy(m.get_extra_state())) for m in extra]
        kept = modules if keeps_parameters else []
        parameters = list(dict.fromkeys(p for m in kept for p in m.parameters()))
        size = sum(p.numel() * p.element_size() for p in parameters)
        is_small = size <= MOST_BYTES
        # No pass can write to what is expanded, nor could its value go back.
        copied = {p for p in parameters if is_small and not is_expanded(p)}
        self._parameters = [
            (p, p._version, p.detach().clone() if p in copied else None)
            for p in parameters
        ]
        self._grads = [
            (p, p.grad, p.grad.clone() if is_small and p.grad is not None else None)
            for p in parameters
        ]
        self._optimizers = [(each, _copied(each)) for each in optimizers]
        inner = [g for m in self.modules for g in generators_in(m).values()]
        self._generators = _states_of([*drawn_in([loader]), *inner, *generators])
        self._card = _card_of(self.modules)
        self._drawn = rng_state(self._card)

    def put_buffers_back(self) -> None:
        """Give each buffer its object and its values back; before every pass.

        And all else that is no mode, gradient or generator.
        """
        with torch.no_grad():
            self._put_parameters_back()
            for module, buffers in self._buffers:
                module._buffers.clear()
                for name, (buffer, value) in buffers.items():
                    module._buffers[name] = buffer
                    # Only then: a write would raise the version that autograd checks.
                    if buffer is not None and not is_same_tensor(buffer, value):
                        if buffer.shape != value.shape:  # it has grown in place
                            buffer.resize_(value.shape)
                        buffer.copy_(value)
        for module, numbers in self._numbers:
            vars(module).update(numbers)
        for module, saved in self._extra:
            module.set_extra_state(copy.deepcopy(saved))
        for optimizer, (groups, state) in self._optimizers:
            for group, options in zip(optimizer.param_groups, groups, strict=True):
                group.update(options)
            optimizer.state.clear()
            optimizer.state.update({p: copy.deepcopy(each) for p, each in state})

    def _put_parameters_back(self) -> None:
        for parameter, version, value in self._parameters:
            is_plain = type(parameter) in (Tensor, nn.Parameter)
            if value is not None and (is_plain or parameter._version != version):
                # Always: no version tells of a write through ``.data``, and comparing
                # would wait for the device. Nor may this write raise a version.
                parameter.data.copy_(value)
            elif parameter._version != version:  # no copy is there
                raise ConfigError(
                    f"computing the loss changes a parameter of shape "
                    f"{tuple(parameter.shape)}, and the model is too large to keep a "
                    "copy while the loss is measured; say with loss_per what it is a "
                    "mean over"
                )

    def states(self) -> str:
        """Return all states of generators as they are: others if something is drawn."""
        own = [_state_of(generator) for generator, _ in self._generators]
        states = [*rng_state(self._card).values(), *own]
        return repr([s.tolist() if isinstance(s, Tensor) else s for s in states])

    def put_modes_back(self) -> None:
        """Give each module its mode back."""
        for module, mode in self._modes:
            module.training = mode

    def put_back(self) -> None:
        """Put everything back."""
        self.put_buffers_back()
        for parameter, grad, value in self._grads:
            parameter.grad = grad
            if grad is not None and value is not None:
                grad.detach().copy_(value)
        self.put_modes_back()
        _give_back(self._generators)
        load_rng_state(self._drawn, self._card)


@contextmanager
def untouched(
    modules: Iterable[nn.Module],
    loader: Any = None,
    keeps_parameters: bool = True,
    optimizers: Sequence[Optimizer] = (),
    generators: Iterable[Any] = (),
) -> Iterator[Kept]:
    """Put everything back at the end, whatever happens; arguments as ``Kept``."""
    kept = Kept(list(modules), loader, keeps_parameters, optimizers, generators)
    try:
        yield kept
    finally:
        kept.put_back()


@contextmanager
def undrawn(generators: Iterable[Any]) -> Iterator[None]:
    """Put back at the end what is drawn from ``generators`` meanwhile."""
    states = _states_of(generators)
    try:
        yield
    finally:
        _give_back(states)


def quiet_train_mode(model: nn.Module, kept: Kept) -> None:
    """Put ``model`` into train mode, but dropout and BatchNorm into eval mode.

    Those of what is kept beside it, such as a loss, too. A run's model is in train mode
    already, but for what rests; one that was found in eval mode goes into train mode as
    a whole, but for what is frozen.
    """
    kept.put_modes_back()
    if not model.training:
        model.train()
        for module in frozen_modules(model).values():
            module.eval()
    for module in kept.modules:
        if isinstance(module, (_BatchNorm, _DropoutNd)):
            module.eval()


def _numbers_of(module: nn.Module) -> dict[str, Any]:
    """Return the numbers and flags among a module's attributes, by name."""
    attributes = vars(module).items()
    found = {n: v for n, v in attributes if type(v) in (bool, int, float)}
    found.pop("training", None)  # its mode goes its own way
    return found


def _copies_of(buffers: Mapping[str, Tensor | None]) -> dict[str, tuple[Any, Any]]:
    """Return name -> (buffer, copy), each None where there is no buffer."""
    return {
        name: (each, None if each is None else each.detach().clone())
        for name, each in buffers.items()
    }


def _has_extra_state(module: nn.Module) -> bool:
    """Whether it saves and loads a state beside its tensors."""
    own, plain = type(module), nn.Module
    saves = own.get_extra_state is not plain.get_extra_state
    return saves and own.set_extra_state is not plain.set_extra_state


def _copied(optimizer: Optimizer) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return options of each group, and (parameter, state) pairs."""
    state = [(p, copy.deepcopy(each)) for p, each in optimizer.state.items()]
    return [dict(group) for group in optimizer.param_groups], state


def _card_of(modules: list[nn.Module]) -> torch.device | None:
    """Return the card that one of ``modules`` computes on: it has a generator, too."""
    for module in modules:
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_cuda:
                return tensor.device
    return None


def is_same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether both have one shape and the same numbers, NaN included; waits."""
    return one.shape == other.shape and bool(
        torch.equal(one, other)
        or (
            one.is_floating_point()
            and torch.equal(one.isnan(), other.isnan())
            and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    )


def _states_of(generators: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Return each of ``generators`` and its state, if it has one."""
    # What the system draws has none.
    kept = [g for g in generators if not isinstance(g, random.SystemRandom)]
    return [(generator, _state_of(generator)) for generator in kept]


def _give_back(states: list[tuple[Any, Any]]) -> None:
    for generator, state in states:
        _set_state(generator, state)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "get_state"):
        return generator.get_state()
    return generator.bit_generator.state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state
