"""What a trainer shows of its run, and what may be set on it between two runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, TypeVar

from training.arguments.checks import CHECKS
from training.messages.other_trainers import suggests_arguments

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
        if name in CHECKS:
            value = CHECKS[name](value)
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
    near = difflib.get_close_matches(name, CHECKS, n=1, cutoff=0.9)
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
    cls.__init__ = suggests_arguments(cls.__init__)  # type: ignore[method-assign]
    cls.__reduce__ = _refuse_to_copy  # type: ignore[assignment]
    _ARGUMENTS.update(inspect.signature(cls).parameters)
    cls.__setattr__ = _set_between_runs  # type: ignore[method-assign]
    return cls
