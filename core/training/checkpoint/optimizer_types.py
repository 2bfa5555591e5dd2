"""The types of an optimizer's state: those it was saved in, whatever torch makes of it.

``Optimizer.load_state_dict`` casts what it is given to the type of each parameter. That
is right where the parameter has another type than it was saved in, and loses bits where
the state never had the parameter's: master weights, moments or counters in fp32 beside
weights in bf16, masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: How torch loads; a class of its own may have another way.
LOADS = torch.optim.Optimizer.load_state_dict


def load_as_saved(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load ``state``, each tensor in its own type, on the device that torch chooses.

    Hooks on the optimizer's loading meet what was saved: those before it have the last
    word on what is loaded, those after it find it in its own types. An optimizer that
    loads by itself is left to that: it may keep its state in another form.

    Raises:
        ValueError: the groups are not those of ``optimizer``.
    """
    if getattr(type(optimizer), "load_state_dict", None) is not LOADS:
        optimizer.load_state_dict(dict(state))
        return
    given: dict[str, Any] = {}
    hooks = (
        optimizer.register_load_state_dict_pre_hook(lambda _, last: given.update(last)),
        optimizer.register_load_state_dict_post_hook(
            lambda loaded: _give_types_back(loaded, given), prepend=True
        ),
    )
    try:
        optimizer.load_state_dict(dict(state))
    finally:
        for hook in hooks:
            hook.remove()


def _give_types_back(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        if parameter in optimizer.state and number in state["state"]:
            own = optimizer.state[parameter]
            optimizer.state[parameter] = _in_types_of(state["state"][number], own)


def follow_weights(
    state: Mapping[Any, Any],
    weights: Mapping[str, Any],
    parameters: Mapping[Any, Tensor | None],
    names: Mapping[Tensor, str],
) -> dict[Any, Any]:
    """Return ``state`` with that of each retyped parameter cast along, as torch does.

    Args:
        state: number of a parameter -> its state, as saved.
        weights: name -> saved weight.
        parameters: number -> the parameter of this run, None where there is none.
        names: of the parameters of this run.
    """
    moved = dict(state)
    for number, parameter in parameters.items():
        if parameter is None or number not in state:
            continue
        weight = weights.get(names.get(parameter, ""))
        if getattr(weight, "dtype", parameter.dtype) != parameter.dtype:
            moved[number] = _cast(state[number], parameter.dtype)
    return moved


def _cast(saved: Any, kind: torch.dtype) -> Any:
    if isinstance(saved, Tensor):
        return saved.to(kind) if saved.is_floating_point() else saved
    if isinstance(saved, Mapping):
        # A count of steps stays as it is, as in torch.
        return {n: v if n == "step" else _cast(v, kind) for n, v in saved.items()}
    if type(saved) in (list, tuple):
        return type(saved)(_cast(each, kind) for each in saved)
    return saved


def _in_types_of(saved: Any, own: Any) -> Any:
    """Return ``own``, with a copy of each saved tensor that it has in another type."""
    if isinstance(saved, Tensor) and isinstance(own, Tensor):
        # Itself where it is right: what an optimizer has made of it stays.
        return own if own.dtype == saved.dtype else saved.to(own.device, copy=True)
    if isinstance(saved, Mapping) and isinstance(own, dict):
        # In place: an optimizer may have a reference to it.
        own |= {n: _in_types_of(saved[n], own[n]) for n in own.keys() & saved.keys()}
    elif type(saved) in (list, tuple) and type(own) is type(saved):
        mended = map(_in_types_of, saved, own)
        if isinstance(own, tuple):
            return tuple(mended)
        own[:] = mended
    return own
