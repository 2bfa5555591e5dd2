"""Whether all processes have the same options and model, and still the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainbus_distributed.group import Group
from training import ConfigError, PluginError

if TYPE_CHECKING:
    from training import Trainer


def require_same_options(options: Mapping[str, Any], group: Group) -> None:
    """Refuse options that differ, before processes wait for what others never send.

    Args:
        options: of this process, by name.
        group: the processes.
    Raises:
        ConfigError: on all processes; names the first option that differs.
    """
    found = group.gather(dict(options), "of options")
    for name in options:
        _require_same(f"distributed.{name}", [repr(each[name]) for each in found])


def require_same_model(modules: Mapping[str, nn.Module], group: Group) -> None:
    """Refuse parts of other names, shapes or types: exchanges would wait, or mix up.

    A digest of them is sent; only where that differs all of them are.

    Args:
        modules: whose parameters and buffers are exchanged, by name.
        group: the processes.
    Raises:
        ConfigError: on all processes; names the first part that differs.
    """
    own = {
        f"{kind}.{name}": f"{tuple(part.shape)} of {part.dtype}"
        for kind, module in modules.items()
        for parts in (module.named_parameters(), module.named_buffers())
        for name, part in parts
    }
    digest = sha256(repr(own).encode()).hexdigest()
    if len(set(group.gather(digest, "of a model's digest"))) == 1:
        return
    found = group.gather(own, "of a model")
    for name in dict.fromkeys(chain(*found)):
        _require_same(name, [each.get(name, "missing") for each in found])
    for number, names in enumerate(zip(*found, strict=True), 1):
        _require_same(f"weight {number} of the run", names)


def _require_same(name: str, found: Sequence[str]) -> None:
    if any(each != found[0] for each in found):
        said = ", ".join(f"{each} on rank {rank}" for rank, each in enumerate(found))
        raise ConfigError(
            f"{name} is {said}, but all processes of a run must have the same: let "
            "nothing in the script depend on the rank"
        )


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
