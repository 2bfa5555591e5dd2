"""Refuse an optimizer that cannot be stepped as a run steps it, or say so."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from training.errors import ConfigError
from training.messages.other_trainers import SECOND_OPTIMIZER
from training.modules.plain_names import is_expanded
from training.plain import plain

log = logging.getLogger(__name__)

#: What a group holds beside its options, each for each parameter.
PARAMETERS = ("params", "param_names")
#: Module of torch -> option -> the state that it takes, made in a first step alone.
MADE_FIRST: Mapping[str, Mapping[str, str]] = {
    "torch.optim.adam": {"amsgrad": "max_exp_avg_sq"},
    "torch.optim.rmsprop": {"momentum": "momentum_buffer", "centered": "grad_avg"},
}


def checked_optimizer(optimizer: Any, precision: str) -> torch.optim.Optimizer:
    """Return the optimizer, unless it cannot be stepped as a run steps it.

    Foreign numbers among its options become Python's own, in place.

    Args:
        optimizer: what was passed.
        precision: of the run.
    Raises:
        ConfigError: it is none, needs a closure, keeps other weights to train than to
            evaluate, has a group without a usable rate, with an option that its state
            lacks, or with parameters that cannot be written to or scaled as fp16.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        if isinstance(optimizer, (list, tuple)):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__} of {len(optimizer)}; pass "
                "one, with a group for each part of the model where one loss trains "
                f"all, else {SECOND_OPTIMIZER}"
            )
        raise ConfigError(
            f"optimizer is {optimizer!r:.80}; pass a torch optimizer, such as "
            "AdamW(model.parameters(), lr=1e-3)"
        )
    name = type(optimizer).__name__
    if _needs_closure(optimizer):
        raise ConfigError(
            f"the optimizer is {name}, whose step() needs a closure that computes the "
            "loss again, and a step here is made of gradients that are there; use one "
            "that steps without, such as AdamW or SGD"
        )
    inner = getattr(optimizer, "optimizer", optimizer)  # wrappers have both methods
    if all(callable(getattr(inner, each, None)) for each in ("train", "eval")):
        raise ConfigError(
            f"the optimizer is {name}, which has train() and eval(): it keeps other "
            "weights to train than to evaluate and save, and going from one to the "
            "other rounds them; use AdamW or SGD, with a plugin that averages weights"
        )
    plain_options(optimizer)
    for index, group in enumerate(optimizer.param_groups):
        _check_rate(name, index, group)
        _check_writable(index, group["params"])
        _check_state(optimizer, index, group)
        if precision == "fp16":
            _check_scalable(index, group["params"])
    return optimizer


def plain_options(optimizer: torch.optim.Optimizer) -> None:
    """Turn foreign numbers among an optimizer's options into Python's, in place."""
    for options in (optimizer.defaults, *optimizer.param_groups):
        for name, value in options.items():
            if name != "params":
                options[name] = plain(value)


def warn_of_ended_schedule(
    optimizer: torch.optim.Optimizer, plugins: Iterable[Any]
) -> None:
    """Say that a schedule of before has left no rate, where nobody moves it again.

    Args:
        optimizer: a run is about to begin afresh with it.
        plugins: those of the run; who changes an optimizer declares it.
    """
    # Hooks of the optimizer itself may step a scheduler, as from a rate of 0.
    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    moves = any("optimizer" in getattr(each, "mutates", ()) for each in plugins)
    # Torch's marks of a schedule, and of a step under it: a new one may begin at 0.
    is_torchs = hasattr(optimizer.step, "_wrapped_by_lr_sched")
    is_new = is_torchs and not getattr(optimizer, "_opt_called", False)
    if moves or is_new or any(getattr(optimizer, name, None) for name in hooks):
        return
    groups = [group for group in optimizer.param_groups if group["params"]]
    full = [float(group.get("initial_lr", 0)) for group in groups]
    # One read each at set-up where they are tensors on a device.
    if any(full) and not any(float(group["lr"]) for group in groups):
        log.warning(
            "the rate of every group of the optimizer is 0, as the schedule of an "
            "earlier run has left it, and no plugin declares that it moves it: unless "
            "one does, this run changes no weight; set group['lr'] of each group in "
            "optimizer.param_groups, whose full rate was %g (group['initial_lr']), or "
            "give this run a schedule",
            max(full),
        )


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` cannot be called without an argument, as that of LBFGS."""
    # The class's: a scheduler replaces the method by a wrapper that hides its form.
    _, *rest = inspect.signature(type(optimizer).step).parameters.values()
    return any(
        each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in rest
    )


def _check_writable(index: int, parameters: Iterable[Tensor]) -> None:
    """Refuse what no step can write to; a fused kernel would write behind its end."""
    for parameter in parameters:
        # A lazy one has no shape yet; it is refused with its model.
        if is_lazy(parameter) or not parameter.requires_grad:
            continue
        if is_expanded(parameter):
            raise ConfigError(
                f"group {index} of the optimizer has a parameter of shape "
                f"{tuple(parameter.shape)} whose elements share memory, as expand() "
                "lets them, so no step can write each; make it of a clone()"
            )


def _check_state(
    optimizer: torch.optim.Optimizer, index: int, group: Mapping[str, Any]
) -> None:
    """Refuse an option that was turned on after the first step, which makes its state.

    Of torch's own ways to step alone: another one may make it whenever it is needed.
    """
    step, begin = (getattr(type(optimizer), n, None) for n in ("step", "_init_group"))
    module = getattr(step, "__module__", "")
    if getattr(begin, "__module__", "") != module:
        return
    for option, kept in MADE_FIRST.get(module, {}).items():
        for parameter in group["params"] if group.get(option) else ():
            state = optimizer.state.get(parameter)
            # What is frozen is not stepped.
            if state and kept not in state and parameter.requires_grad:
                raise ConfigError(
                    f"group {index} of {type(optimizer).__name__} has the {option} "
                    f"{group[option]}, but the state of its parameter of shape "
                    f"{tuple(parameter.shape)}, which was stepped without, has no "
                    f"{kept}, which torch makes in a first step alone; set {option} "
                    "back, or let the state begin afresh: call optimizer.state.clear(),"
                    " or load with weights_only=True"
                )


def _check_scalable(index: int, parameters: Iterable[Tensor]) -> None:
    """Refuse gradients that torch's loss scaler does not unscale."""
    for kind in {p.dtype for p in parameters if p.requires_grad}:
        if kind.is_complex:
            found, way = "complex", "use 'bf16' or 'fp32'"
        elif kind is torch.float16:
            # Half as many bits to train; autocast casts what is computed by itself.
            found = "float16"
            way = "call model.float() before building the optimizer, or "
            way += "requires_grad_(False) of what stays as it is"
        else:
            continue
        raise ConfigError(
            f"precision is 'fp16', and group {index} of the optimizer has {found} "
            f"parameters, whose gradients torch's loss scaler does not take; {way}"
        )


def _check_rate(name: str, index: int, group: Mapping[str, Any]) -> None:
    rate: Any = group.get("lr")
    is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if not is_number and not (isinstance(rate, Tensor) and rate.numel() == 1):
        raise ConfigError(
            f"group {index} of {name} has the lr {rate!r}; give the optimizer a "
            "number, which a run logs and schedules (transformers' Adafactor: with "
            "relative_step=False)"
        )
    if not math.isfinite(rate):  # one read at set-up where it is a tensor on a device
        raise ConfigError(
            f"group {index} of {name} has the lr {float(rate)}; use a finite number"
        )
