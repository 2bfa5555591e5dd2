"""Whether a checkpoint could hold a run, told before its first step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from training.checkpoint.optimizer_state import options_of, state_dict_of
from training.checkpoint.plugin_states import check_states
from training.checkpoint.settings import settings_of
from training.checkpoint.storable import OF_PART, describe_foreign, foreign_value
from training.errors import ConfigError
from training.plain import plain

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)


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
