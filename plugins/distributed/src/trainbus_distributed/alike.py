"""Whether processes that each have the whole model still have the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainbus_distributed.group import Group
from training import PluginError

if TYPE_CHECKING:
    from training import Trainer


def require_alike(trainer: Trainer, group: Group) -> None:
    """Refuse weights or learning rates that differ from process to process.

    The same gradients move the same weights to the same bits, so the sum of each is
    compared exactly. On CUDA one read, which waits.

    Raises:
        PluginError: on all processes; names the first weight that differs.
    """
    weights = dict(trainer.model.named_parameters())
    found_here = [weight.detach().abs().double().sum() for weight in weights.values()]
    sums: list[float] = torch.stack(found_here).tolist() if found_here else []
    rates = [float(each["lr"]) for each in trainer.optimizer.param_groups]
    # As texts: NaN is not equal to itself.
    own_numbers = [repr(number) for number in (*rates, *sums)]
    found = group.gather(own_numbers, "of weights")
    what = [*(f"the learning rate of group {i}" for i in range(len(rates))), *weights]
    for rank, other in enumerate(found):
        for name, own, main in zip(what, other, found[0], strict=True):
            if own != main:
                raise PluginError(
                    f"{name} is not the same on rank {rank} as on rank 0 at the end of "
                    f"epoch {trainer.epoch}: a plugin or the script changes it on some "
                    "processes only; let all of them do the same"
                )
