"""Refuse when passed what would fail later, and when set what would do nothing."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from training.bus.callback import Callback
from training.checkpoint.optimizer_state import options_of, state_dict_of
from training.checkpoint.plugin_states import check_states
from training.checkpoint.settings import settings_of
from training.checkpoint.storable import OF_PART, describe_foreign, foreign_value
from training.errors import ConfigError, PluginError
from training.files.named_paths import named_path
from training.loop.window import NONFINITE_POLICIES
from training.messages.other_trainers import tells_names
from training.plain import plain
from training.planned.length import epochs_for, num_windows

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Shown(property):
    """A read-only attribute, which is refused by its own name, not that of its part."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, trainer: Any, value: Any) -> None:
        raise AttributeError(
            f"trainer.{self.name} tells about the run and cannot be set; build a "
            "Trainer with what it shall be"
        )


def shown(path: str) -> Any:
    """Return a read-only attribute that a part of the trainer holds, by its path."""
    return _Shown(attrgetter(path))


class Epochs:
    """``trainer.num_epochs``: what was set, or what ``max_steps`` takes, or 1.

    Told anew each time: only a run that is set up knows how many batches it reads.
    """

    def __get__(self, trainer: Any, _: object) -> int:
        """Return how many passes a run makes in all."""
        given: int | None = vars(trainer)["num_epochs"]
        if given is not None:
            return given
        batches = getattr(trainer, "batches_per_epoch", None)
        window = trainer.gradient_accumulation_steps
        steps = None if batches is None else num_windows(batches, window)
        return epochs_for(trainer.max_steps, steps)

    def __set__(self, trainer: Any, value: int | None) -> None:
        """Set a number of passes, or None."""
        vars(trainer)["num_epochs"] = value


def epoch_limit(trainer: Any) -> int:
    """Return after how many epochs a run ends, if its steps do not end it before."""
    return vars(trainer)["num_epochs"] or trainer.max_steps or 1


def planned_end(trainer: Any) -> str:
    """Return which limit has ended a run."""
    given, most = vars(trainer)["num_epochs"], trainer.max_steps
    if most is not None and (given is None or trainer.epoch < given):
        return f"max_steps={most} reached"
    return f"num_epochs={trainer.num_epochs} reached"


#: What a trainer has placed, looked through or registered as it was built.
_OF_A_TRAINER = {"model", "criterion", "modes", "device", "bus"}
#: What it is built of.
_ARGUMENTS: set[str] = set()
#: What a run, or a plugin that is set up earlier, has read by ``on_setup``.
_OF_A_RUN = {
    *("optimizer", "train_dataloader", "seed", "save_dir", "stop_on_sigusr1"),
    "gradient_accumulation_steps",
}
#: What it reads after that, once.
_OF_A_WINDOW = {"max_grad_norm", "nonfinite"}
_IN_GROUPS = "set it in each group of trainer.optimizer.param_groups: group[{!r}] = ..."
#: What other trainers have -> how it is done here.
_ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("lr", "learning_rate"), _IN_GROUPS.format("lr")),
    "weight_decay": _IN_GROUPS.format("weight_decay"),
    "batch_size": "set trainer.train_dataloader to a loader of that batch size",
    "should_stop": "call trainer.request_stop(reason)",
}


def _set_between_runs(trainer: Any, name: str, value: Any) -> None:
    run = vars(trainer).get("_run")
    if run is not None:
        _refuse_unheard(trainer, name)
    if run is not None and trainer.bus.is_in_run:
        is_late = name in _OF_A_WINDOW
        if name in _OF_A_RUN or (is_late and run.is_set_up):
            raise AttributeError(
                f"trainer.{name} is what this run was set up with and cannot be set "
                f"any more; set it before train(){' or in on_setup' * is_late}, or "
                "change what it holds"
            )
        if name in _CHECKS:
            value = _CHECKS[name](value)
    object.__setattr__(trainer, name, value)


def _refuse_unheard(trainer: Any, name: str) -> None:
    """Refuse a name that a trainer which is built would not look at any more."""
    is_own = hasattr(trainer, name)
    if name in _OF_A_TRAINER or (name in _ARGUMENTS and not is_own):
        raise AttributeError(
            f"trainer.{name} cannot be set: it was taken up as the trainer was built; "
            "build another one, or change what it holds"
        )
    if is_own:
        return
    # A subclass may keep what it takes besides, or makes of that.
    taken = inspect.signature(type(trainer)).parameters.keys() - _ARGUMENTS
    if name in taken:
        return
    if name in _ELSEWHERE and not taken:
        raise AttributeError(f"a trainer has no {name!r}; {_ELSEWHERE[name]}")
    # Only what nearly is one: others may keep something of their own on a trainer.
    near = difflib.get_close_matches(name, _CHECKS, n=1, cutoff=0.9)
    if near and not name.startswith("_"):
        raise AttributeError(f"a trainer has no {name!r} (did you mean {near[0]!r}?)")


def _refuse_to_copy(trainer: Any) -> Any:
    # As pickle does for what it cannot take; who copies by either way comes by here.
    raise TypeError(
        f"a {type(trainer).__name__} cannot be copied or pickled, since its run, "
        "plugins and files are one trainer's; build another one in its place, or keep "
        "its state with save_checkpoint(path)"
    )


def set_between_runs(cls: type[T]) -> type[T]:
    """Refuse to set an attribute of a trainer that its run would not look at again.

    That would change what records and checkpoints say, and nothing that is trained. A
    method of the class would let type checkers take any attribute for one of its own.
    A trainer is refused, too, where it is copied with all that it is built of.
    """
    cls.__init__ = tells_names(cls.__init__)  # type: ignore[method-assign]
    cls.__reduce__ = _refuse_to_copy  # type: ignore[assignment]
    _ARGUMENTS.update(inspect.signature(cls).parameters)
    cls.__setattr__ = _set_between_runs  # type: ignore[method-assign]
    return cls


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
    checked = {name: check(given[name]) for name, check in _CHECKS.items()}
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
_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
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


def check_savable(trainer: Checkpointable) -> None:
    """Say before the first step what no checkpoint of this run could hold.

    Raises:
        ConfigError: an option of the optimizer, a setting or metadata is it, or the
            optimizer's state is none that could be loaded, and there is a plugin that
            saves; without one it is a warning. PluginError: a plugin's state is it.
    """
    parts: dict[str, Any] = {
        "the optimizer's param_groups": options_of(trainer.optimizer),
        "settings": settings_of(trainer),
        "metadata": trainer.metadata,
    }
    found = [foreign_value(plain(each), name, OF_PART) for name, each in parts.items()]
    problems = [describe_foreign(*each) for each in found if each is not None]
    for problem in (*problems, *_lacking(trainer.optimizer)):
        if trainer.bus.listeners("on_checkpoint"):
            raise ConfigError(problem)
        log.warning("this run cannot be saved: %s", problem)
    check_states(trainer)


def _lacking(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return a clause for what a checkpoint needs of an optimizer that it lacks."""
    state = state_dict_of(optimizer)  # a wrapper may have one of its own
    return [
        f"the state_dict() of the optimizer, a {type(optimizer).__name__}, has no "
        f"{name!r} but {', '.join(map(str, state))}, and no run could load it; have it "
        "return 'state' and 'param_groups' as torch's optimizers do, or use the "
        "optimizer inside of it"
        for name, kind in {"state": dict, "param_groups": list}.items()
        if not isinstance(state.get(name), kind)
    ]


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
