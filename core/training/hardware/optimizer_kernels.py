"""Which of torch's kernels step a run's weights, and what a fused one must find.

The fused SGD makes its momentum in the first step, of memory that nobody wrote, and
relies on its kernel to fill it; but told to leave the weights alone, as fp16 does at an
overflow, the kernel fills nothing, and the next step moves the weights by what lay
there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

log = logging.getLogger(__name__)

#: Options that say how an optimizer computes, not what.
WAYS = ("foreach", "fused", "capturable", "differentiable")


def keep_kernels(
    optimizer: torch.optim.Optimizer, configured: Sequence[Mapping[str, Any]]
) -> None:
    """Let this run's own ways to compute hold, which a loaded state has replaced.

    A run that was saved on a CPU may go on with a fused optimizer on a GPU; what the
    optimizer promised when it was built has to be true of its groups.

    Args:
        optimizer: has just loaded a state.
        configured: the options of its groups as they were built.
    """
    # Not strict: groups that joined later were not configured here.
    for group, own in zip(optimizer.param_groups, configured, strict=False):
        group.update({name: own[name] for name in WAYS if name in own})
    prepare_momentum(optimizer)


def prepare_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Put zeros where a fused SGD would find memory that nobody wrote.

    Without dampening the first step from zeros is torch's own first step, bit for bit.
    With it torch leaves the first gradient undampened, so steps then run unfused.

    Args:
        optimizer: any; its state and groups are changed in place if it is such a one.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if not group["fused"] or not group["momentum"]:
            continue
        if group["dampening"]:
            _unfuse(optimizer)
            return
        for parameter in group["params"]:  # frozen ones, too: they may join later
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _unfuse(optimizer: torch.optim.SGD) -> None:
    for options in (optimizer.defaults, *optimizer.param_groups):
        options["fused"] = False
    optimizer._step_supports_amp_scaling = False  # what fused=True had set
    log.warning(
        "SGD has dampening, with which its fused kernel loses the momentum of a first "
        "step that overflows; its steps run unfused"
    )
