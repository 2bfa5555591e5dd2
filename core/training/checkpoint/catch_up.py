"""Put back, when a run is resumed, what hooks of the saved run had changed by then.

A hook may have let a parameter group join, moved parameters from one group to another
or out of all, frozen or thawed them, or put modules to rest, in an epoch that the
resumed run does not see begin again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.checkpoint.optimizer_state import (
    Names,
    SavedGroup,
    configured_names,
    counterparts,
    group_names,
    names_of,
    set_aside,
    state_dict_of,
)
from training.checkpoint.optimizer_types import load_as_saved
from training.errors import CheckpointError
from training.modules.plain_names import some
from training.modules.train_mode import freeze_again

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Parts that hooks of the saved run may have changed -> what they say of each name.
CHANGED_BY_HOOKS = {"trainable": "trained or not", "in_eval": "in eval mode or not"}


def switches(run: Checkpointable) -> dict[str, list[str]]:
    """Return by part the names of what hooks switch on: training, and rest."""
    trainable = sorted(n for p, n in names_of(run).items() if p.requires_grad)
    return {"trainable": trainable, "in_eval": run.modes.in_eval()}


def catch_up(
    run: Checkpointable,
    saved: Mapping[str, Collection[str]],
    before: Mapping[str, Collection[str]],
    groups: Sequence[Sequence[str]],
    is_inside_epoch: bool,
) -> None:
    """Put back what hooks of the saved run had changed by the boundary it was saved at.

    Parameters leave the groups that they had left, and groups join the optimizer that
    had joined it, unless a hook has seen to it again; parameters require gradients, and
    modules are in eval mode, as they were. Between two epochs, what a hook has switched
    on in this run already stays so: it may have done what the coming epoch is to begin
    with.

    Args:
        run: it is about to go on.
        saved: ``switches`` of the checkpoint; parts that are not in it stay.
        before: the same of this run when the checkpoint was loaded.
        groups: names of the parameters in all groups of the checkpoint, in order.
        is_inside_epoch: whether the checkpoint is from inside an epoch.
    Raises:
        CheckpointError: a group cannot join.
    """
    names, now = names_of(run), switches(run)
    joining = run.state.joining_groups
    _regroup(run, names, groups, is_inside_epoch)
    if joining:
        join(run.optimizer, names, joining, groups)
        # Else a checkpoint would hold them twice from now on.
        joining.clear()
    for part, word in CHANGED_BY_HOOKS.items():
        # Not in files of earlier releases, nor where its change was consented to.
        if part not in saved:
            continue
        wanted = set(saved[part])
        if not is_inside_epoch:
            wanted |= set(now[part]) - set(before[part])
        if part == "in_eval":
            changed = run.modes.restore(wanted)
        else:
            changed = _restore_trainable(run, names, wanted)
        if changed:
            log.warning(
                "these are %s as in the checkpoint, not as this run set them "
                "(allow_changes=[%r] keeps that): %s",
                *(word, part, some(sorted(changed))),
            )


def _regroup(
    run: Checkpointable,
    names: Names,
    saved: Sequence[Sequence[str]],
    is_inside_epoch: bool,
) -> None:
    """Let configured groups have the parameters that they had in the checkpoint."""
    parameters = {name: parameter for parameter, name in names.items()}
    live, configured = run.optimizer.param_groups, configured_names(run)
    own = group_names(live, names)
    # In groups that a hook has let join.
    late = {n for each in own[len(run.configured_groups or ()) :] for n in each}
    places = run.state.group_places[: len(run.configured_groups or ())]
    for at, place in enumerate(places):
        wanted = configured[at] if place is None else saved[place]
        is_moved = set(own[at]) != set(configured[at])  # by a hook of this run
        if set(wanted) == set(own[at]) or (is_moved and not is_inside_epoch):
            continue
        group, here = live[at], [n for n in wanted if n not in late]
        if "param_names" in group:
            of = dict(zip(group["params"], group["param_names"], strict=False))
            group["param_names"] = [of.get(parameters[n], n) for n in here]
        group["params"] = [parameters[n] for n in here]


def _restore_trainable(
    run: Checkpointable, names: Mapping[Tensor, str], wanted: Collection[str]
) -> list[str]:
    """Let parameters require gradients or not; return names of those that change."""
    changed = {p: n for p, n in names.items() if p.requires_grad != (n in wanted)}
    for parameter, name in changed.items():
        parameter.requires_grad_(name in wanted)
    freeze_again(run.model, run.optimizer)
    return list(changed.values())


def join(
    optimizer: torch.optim.Optimizer,
    names: Names,
    joining: Sequence[SavedGroup],
    saved: Sequence[Sequence[str]],
) -> None:
    """Let groups of a checkpoint join, or take over one that a plugin added again.

    Raises:
        CheckpointError: their parameters are in other groups by now, or are gone.
    """
    parameters = {name: parameter for parameter, name in names.items()}
    joining = [group for group in joining if group.options]  # others are in none
    for group in joining:
        own = group_names(optimizer.param_groups, names)
        # A plugin has let it join again by itself.
        if counterparts([group.names], own) != [None]:
            continue
        taken = set(group.names) & {name for each in own for name in each}
        gone = set(group.names) - parameters.keys()
        if taken or gone:
            raise CheckpointError(
                f"a parameter group joined the saved run with {some(group.names)}, but "
                f"{some(sorted(taken or gone))} is "
                f"{'in another group' if taken else 'not in the model'} now; let the "
                "same group join, or load with weights_only=True"
            )
        options = dict(group.options)
        own_names = options.pop("param_names", group.names)
        own_parameters: list[Any] = [parameters[name] for name in group.names]
        if "param_names" in optimizer.param_groups[0]:
            own_parameters = list(zip(own_names, own_parameters, strict=True))
        optimizer.add_param_group({**options, "params": own_parameters})
    # The order of groups is that of sums over them, such as the norm to clip by.
    own = group_names(optimizer.param_groups, names)
    joined = counterparts(own, [group.names for group in joining])
    is_new = [place is None for place in counterparts(own, saved)]
    # By id: a group is a dict, which is no key.
    ranks = {
        id(group): (is_new[at], joined[at] is not None, joined[at] or 0)
        for at, group in enumerate(optimizer.param_groups)
    }
    optimizer.param_groups.sort(key=lambda group: ranks[id(group)])
    restore_groups(optimizer, names, joining)


def restore_groups(
    optimizer: torch.optim.Optimizer, names: Names, joining: Sequence[SavedGroup]
) -> None:
    """Give the joined groups their saved options and states; others keep theirs."""
    own = group_names(optimizer.param_groups, names)
    state = state_dict_of(optimizer)
    state["state"] = dict(state["state"])
    for group, (place,) in zip(
        joining, (counterparts([g.names], own) for g in joining), strict=True
    ):
        assert place is not None, "it has joined"
        live = state["param_groups"][place]
        kept = {k: live[k] for k in ("params", "param_names") if k in live}
        options = {k: v for k, v in group.options.items() if k != "param_names"}
        state["param_groups"][place] = {**options, **kept}
        for index, name in zip(live["params"], own[place], strict=True):
            # Where nothing was saved, nothing shall be left.
            state["state"].pop(index, None)
            if name in group.state:
                state["state"][index] = group.state[name]
    with set_aside(optimizer):
        load_as_saved(optimizer, state)
