"""Refuse an argument of a trainer when it is passed that would fail later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from training.bus.callback import Callback
from training.checkpoint.storable import OF_PART, describe_foreign, foreign_value
from training.errors import ConfigError, PluginError
from training.files.named_paths import named_path
from training.loop.window import NONFINITE_POLICIES
from training.plain import plain

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable


def checked_count(name: str, value: Any) -> int:
    """Return ``value`` as an int, whichever library's whole number it is.

    Raises:
        ConfigError: it is none, or below 1; True is no number.
    """
    number = plain(value)
    if not _is_whole(number) or number < 1:
        raise ConfigError(f"{name} is {number!r}; use a whole number of at least 1")
    return int(number)


def _count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else checked_count(name, value)


def checked_reason(kind: str, reason: Any) -> str:
    """Return why something is asked for, as the text that a checkpoint can hold."""
    if not isinstance(reason, str):
        raise ConfigError(
            f"the reason of request_{kind} is {reason!r}; pass text, such as str(error)"
        )
    return str(reason)


def checked_seed(value: Any) -> int | None:
    """Return the seed as an int, None for None.

    Raises:
        ConfigError: torch's generators do not take it.
    """
    if value is None:
        return None
    number = plain(value)
    if not _is_whole(number) or not -(2**63) <= number < 2**64:
        raise ConfigError(
            f"seed is {number!r}; use a whole number from -2**63 to 2**64 - 1, or None"
        )
    return int(number)


def checked_norm(value: Any) -> float | None:
    """Return ``max_grad_norm`` as a number, None for None.

    Raises:
        ConfigError: it is negative, NaN or no number; True is none.
    """
    if value is None:
        return None
    number = plain(value)
    is_real = isinstance(number, Real) and not isinstance(number, bool)
    if not is_real or not number >= 0:
        raise ConfigError(
            f"max_grad_norm is {number!r}; use a number, 0 or more, or None"
        )
    norm: float = number  # an int stays one, as it was passed
    return norm


def checked_flag(name: str, value: Any) -> bool:
    """Return a switch as a bool; words such as "false" would count as True.

    Raises:
        ConfigError: it is neither True, False, 1 nor 0.
    """
    flag = plain(value)
    if not isinstance(flag, int) or flag not in (0, 1):
        raise ConfigError(f"{name} is {flag!r}; use True or False")
    return bool(flag)


def checked_policy(nonfinite: Any) -> str:
    """Return the policy for values that are not finite, if there is such a one."""
    if nonfinite not in NONFINITE_POLICIES:
        raise ConfigError(
            f"nonfinite is {nonfinite!r}; choose one of: "
            f"{', '.join(NONFINITE_POLICIES)}"
        )
    return str(nonfinite)


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the metadata, its numbers as Python's own.

    Raises:
        ConfigError: it is no mapping, or a value is none that a checkpoint can hold.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ConfigError(
            f"metadata is {type(metadata).__name__}; use a mapping of names to values"
        )
    values: dict[str, Any] = plain(dict(metadata or {}))
    foreign = foreign_value(values, "metadata", OF_PART)
    if foreign is not None:
        raise ConfigError(describe_foreign(*foreign))
    return values


def checked_model(model: Any) -> nn.Module:
    """Return the model, unless it is none whose parts can be reached.

    Raises:
        ConfigError: it is no module but its class, say, or TorchScript, or lazy.
    """
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise ConfigError(f"model is {what:.80}; pass an instance of torch.nn.Module")
    for name, part in model.named_modules():
        own, why = (*part._parameters.values(), *part._buffers.values()), ""
        if isinstance(part, torch.jit.ScriptModule):
            why = "TorchScript ({}), whose parts cannot be reached to train and save "
            why += "them; pass what it was made from, with compile=True for its speed"
        elif any(map(is_lazy, own)):
            why = "still without shapes ({}), which no checkpoint could be loaded "
            why += "into; run one batch through the model before"
        if why:
            at = f"model.{name}" if name else "model"
            raise ConfigError(f"{at} is {why.format(type(part).__name__)}")
    return model


def check_settings(trainer: Checkpointable) -> None:
    """Check what may be set on a trainer until it trains.

    Numbers of other libraries become Python's own.

    Raises:
        ConfigError: a setting is none that a run can have; says which.
    """
    given = vars(trainer)  # as it was set, which is None where ``Epochs`` tells more
    checked = {name: check(given[name]) for name, check in CHECKS.items()}
    for name, value in checked.items():
        setattr(trainer, name, value)


def checked_folder(save_dir: Any) -> Path:
    """Return the folder of a run as a path.

    Raises:
        ConfigError: it is no path, or empty, which would be the folder one stands in.
    """
    if save_dir == "":
        raise ConfigError("save_dir is '', which names no folder; use '.' for this one")
    return named_path(save_dir)


def checked_callbacks(callbacks: Any) -> list[Any]:
    """Return ``callbacks`` as a list.

    Raises:
        PluginError: it is one callback, a name or a mapping.
    """
    is_one = isinstance(callbacks, (str, Mapping, Callback))
    if is_one or not isinstance(callbacks, Iterable):
        raise PluginError(
            f"callbacks is {callbacks!r}; pass a list of instances, as in "
            "callbacks=[MyCallback()], and installed plugins by name in plugins=[...]"
        )
    return list(callbacks)


def check_scheduler(scheduler: Any) -> None:
    """Raise ``ConfigError`` for what is no scheduler, such as a list of them."""
    steps = callable(getattr(scheduler, "step", None))
    if not steps or isinstance(scheduler, type):
        raise ConfigError(
            f"scheduler is {scheduler!r}; pass one torch scheduler object, such as "
            "StepLR(optimizer, 10), or leave it out and let the plugin build one: "
            'plugins=[{"lr_scheduling": {"type": "cosine"}}]'
        )


#: What may be set on a trainer that is built, and some of it inside a run.
CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "num_epochs": partial(_count_or_none, "num_epochs"),
    "max_steps": partial(_count_or_none, "max_steps"),
    "gradient_accumulation_steps": partial(
        checked_count, "gradient_accumulation_steps"
    ),
    "max_grad_norm": checked_norm,
    "seed": checked_seed,
    "nonfinite": checked_policy,
    "metadata": checked_metadata,
    "save_dir": checked_folder,
}


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
