"""Put back, when a run is resumed, what hooks of the saved run had changed by then.

A hook may have let a parameter group join, frozen or thawed parameters, or put modules
to rest, in an epoch that the resumed run does not see begin again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from training.checkpoint.optimizer_state import join, names_of
from training.modules.plain_names import some
from training.modules.train_mode import keep_frozen

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Parts that hooks of the saved run may have changed -> what they say of each name.
CHANGED_BY_HOOKS = {"trainable": "trained or not", "in_eval": "in eval mode or not"}


def trainable(run: Checkpointable) -> list[str]:
    """Return the names of the parameters that require a gradient."""
    return sorted(n for p, n in names_of(run).items() if p.requires_grad)


def switches(run: Checkpointable) -> dict[str, list[str]]:
    """Return by part the names of what hooks switch on: training, and rest."""
    return {"trainable": trainable(run), "in_eval": run.modes.in_eval()}


def catch_up(
    run: Checkpointable,
    saved: Mapping[str, Collection[str]],
    before: Mapping[str, Collection[str]],
    groups: Sequence[Sequence[str]],
    is_inside_epoch: bool,
) -> None:
    """Put back what hooks of the saved run had changed by the boundary it was saved at.

    Groups join the optimizer that had joined it, unless a hook has let them join again;
    parameters require gradients, and modules are in eval mode, as they were. Between
    two epochs, what a hook has switched on in this run already stays so: it may have
    done what the coming epoch is to begin with.

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


def _restore_trainable(
    run: Checkpointable, names: Mapping[Tensor, str], wanted: Collection[str]
) -> list[str]:
    """Let parameters require gradients or not; return names of those that change."""
    changed = {p: n for p, n in names.items() if p.requires_grad != (n in wanted)}
    for parameter, name in changed.items():
        parameter.requires_grad_(name in wanted)
    keep_frozen(run.model, run.optimizer)
    return list(changed.values())
