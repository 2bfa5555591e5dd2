"""Tell of what requires gradients, and of what steps, beside the run's optimizer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.checkpoint.optimizer_state import check_parameters, names_of
from training.modules.of_user import has_users_hook
from training.modules.optimizer_checks import warn_of_ended_schedule
from training.modules.plain_names import some
from training.modules.reachable import held_in
from training.modules.train_mode import frozen_parameters

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Of a parameter: its hooks from ``register_post_accumulate_grad_hook``.
STEPS_IN_BACKWARD = "_post_accumulate_grad_hooks"
#: How a plugin thaws what is trained then, also in a run that is resumed.
THAW = (
    "what is to be thawed in a run is frozen with requires_grad_(False) in a plugin's "
    "on_setup, not by model.freeze or freeze_model, and so is in the optimizer"
)


class Untrained:
    """Tells of parameters that require gradients and that nobody steps.

    At the start of all; then, once, of what was frozen by then and is thawed in the
    run. It looks as epochs begin and where training pauses: a step pays nothing.

    Args:
        run: all that prepares it is done; its model, loss and optimizer are looked at.
    Raises:
        ConfigError: the optimizer steps what no checkpoint of the run would hold.
    """

    def __init__(self, run: Checkpointable) -> None:
        check_parameters(run)
        self._run = run
        if run.resumption is None:
            warn_of_ended_schedule(run.optimizer, run.plugins.values())
        _tell_of_others(run)
        if left := _left(_apart(run)):
            log.warning(
                "no group of the optimizer has %s: they require gradients and stay as "
                "they are; give them to the optimizer, or turn requires_grad off",
                some(left),
            )
        self._frozen = [each for each in names_of(run) if not each.requires_grad]
        run.state.before_evaluation.append(self.look)

    def look(self) -> None:
        """Tell of what was frozen and is thawed now, if nobody trains it."""
        thawed = {each for each in self._frozen if each.requires_grad}
        if not thawed:
            return
        self._frozen = [each for each in self._frozen if each not in thawed]
        apart, names = _apart(self._run), names_of(self._run)
        told = {each: name for each, name in apart.items() if each in thawed}
        if left := _left(told):
            log.warning(
                "no group of the optimizer has %s: they came to require gradients in "
                "the run, and stay as they are; %s",
                *(some(left), THAW),
            )
        marked = (thawed & frozen_parameters(self._run.model)) - apart.keys()
        if again := [name for each, name in names.items() if each in marked]:
            log.warning(
                "came to require gradients in the run, but is marked as frozen, and a "
                "resumed run freezes it again: %s; %s",
                *(some(again), THAW),
            )


def _left(apart: dict[Tensor, str]) -> list[str]:
    """Tell of those of ``apart`` whose hooks may step them; return names of others."""
    hooked = [name for each, name in apart.items() if _has_hook(each)]
    if hooked:
        log.warning(
            "no group of the optimizer has %s, but hooks from "
            "register_post_accumulate_grad_hook: where these step them, what they keep "
            "(an optimizer's momentum) is in no checkpoint, unless a callback or a "
            "module saves it; where they do not, give them to the optimizer, or turn "
            "requires_grad off",
            some(hooked),
        )
    return [name for name in apart.values() if name not in hooked]


def _has_hook(parameter: Tensor) -> bool:
    return bool(has_users_hook(getattr(parameter, STEPS_IN_BACKWARD, None) or {}))


def _apart(run: Checkpointable) -> dict[Tensor, str]:
    """Return what requires gradients and is in no group, of any optimizer, by name."""
    optimizers = (run.optimizer, *_others(run).values(), *optimizers_of_plugins(run))
    stepped = {p for each in optimizers for g in each.param_groups for p in g["params"]}
    # Those of a loaded run that join later are not forgotten ones.
    joining = {name for group in run.state.joining_groups for name in group.names}
    return {
        parameter: name
        for parameter, name in names_of(run).items()
        if not (parameter in stepped or name in joining) and parameter.requires_grad
    }


def _others(run: Checkpointable) -> dict[str, Any]:
    """Return the optimizers of the loss or the model that the run does not step."""
    own, found = run.optimizer.param_groups, run.criterion.optimizers
    return {at: each for at, each in found.items() if each.param_groups is not own}


def optimizers_of_plugins(run: Checkpointable) -> list[torch.optim.Optimizer]:
    """Return those among the attributes of plugins, and in lists and mappings there."""
    plugins = [getattr(each, "__dict__", {}) for each in run.plugins.values()]
    parts = [
        held for own in plugins for value in own.values() for held in held_in(value)
    ]
    return [part for _, part in parts if isinstance(part, torch.optim.Optimizer)]


def _tell_of_others(run: Checkpointable) -> None:
    """Warn of optimizers whose state no checkpoint of the run would hold."""
    # A plugin that has one is trusted to keep its state.
    kept = {id(each) for each in optimizers_of_plugins(run)}
    if unsaved := [at for at, each in _others(run).items() if id(each) not in kept]:
        log.warning(
            "beside the run's optimizer the loss or the model has %s, whose state no "
            "checkpoint holds, so that a resumed run is another one; give the run one "
            "optimizer with a group for each part, or have it in a callback with "
            "state_dict(), load_state_dict() and alters_training = True",
            some(unsaved),
        )
