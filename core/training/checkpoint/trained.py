"""Tell of what requires gradients, and of what steps, beside the run's optimizer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.checkpoint.optimizer_state import group_names, names_of
from training.modules.of_user import has_users_hook
from training.modules.optimizer_checks import warn_of_ended_schedule
from training.modules.plain_names import some

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Of a parameter: its hooks from ``register_post_accumulate_grad_hook``.
STEPS_IN_BACKWARD = "_post_accumulate_grad_hooks"


def tell_untrained(run: Checkpointable) -> None:
    """Warn of parameters that require gradients and are in no group.

    And of other optimizers, whose state no checkpoint of this run would hold, and of
    rates of 0 that a fresh run would begin and end with.
    """
    names, groups = names_of(run), run.optimizer.param_groups
    known = {name for names in group_names(groups, names) for name in names}
    if run.resumption is None:
        warn_of_ended_schedule(run.optimizer, run.plugins.values())
    # Those of a loaded run that join later are not forgotten ones.
    known.update(name for group in run.state.joining_groups for name in group.names)
    others = _told_of_others(run)
    apart = {
        name: bool(has_users_hook(getattr(parameter, STEPS_IN_BACKWARD, None) or {}))
        for parameter, name in names.items()
        if parameter.requires_grad and name not in known and parameter not in others
    }
    if hooked := [name for name, has_hook in apart.items() if has_hook]:
        log.warning(
            "no group of the optimizer has %s, but hooks from "
            "register_post_accumulate_grad_hook: where these step them, what they keep "
            "(an optimizer's momentum) is in no checkpoint, unless a callback or a "
            "module saves it; where they do not, give them to the optimizer, or turn "
            "requires_grad off",
            some(hooked),
        )
    if left := [name for name, has_hook in apart.items() if not has_hook]:
        log.warning(
            "no group of the optimizer has %s: they require gradients and stay as they "
            "are; give them to the optimizer, or turn requires_grad off",
            some(left),
        )


def _told_of_others(run: Checkpointable) -> set[Tensor]:
    """Warn of optimizers that the run does not step; return their parameters."""
    own, found = run.optimizer.param_groups, run.criterion.optimizers
    others = {at: each for at, each in found.items() if each.param_groups is not own}
    # A plugin that has one is trusted to keep its state.
    plugins = [getattr(each, "__dict__", {}) for each in run.plugins.values()]
    parts = [part for attributes in plugins for part in attributes.values()]
    held = [part for part in parts if isinstance(part, torch.optim.Optimizer)]
    kept = {id(each) for each in held}
    if unsaved := [at for at, each in others.items() if id(each) not in kept]:
        log.warning(
            "beside the run's optimizer the loss or the model has %s, whose state no "
            "checkpoint holds, so that a resumed run is another one; give the run one "
            "optimizer with a group for each part, or have it in a callback with "
            "state_dict(), load_state_dict() and alters_training = True",
            some(unsaved),
        )
    stepped = (*others.values(), *held)
    groups = [group for each in stepped for group in each.param_groups]
    return {parameter for group in groups for parameter in group["params"]}
