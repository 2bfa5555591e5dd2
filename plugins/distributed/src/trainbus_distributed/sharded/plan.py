"""Which modules of a model are sharded by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from training import ConfigError
from training.plugin import did_you_mean

#: They are never called, so nothing would gather their weights.
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def modules_to_shard(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the modules that are sharded by themselves, inner ones first.

    One that shares a parameter or a part with a module outside of it stays with the
    root, which holds both.

    Args:
        model: raw.
        names: of classes; none: those that the model and its parts name themselves, in
            ``_no_split_modules``.
    Raises:
        ConfigError: no module is of a class that is named.
    """
    kinds = {type(module).__name__ for module in model.modules()}
    for name in names:
        if name not in kinds:
            raise ConfigError(
                f"distributed.shard_modules names {name!r}, and {type(model).__name__} "
                f"has no part of that class{did_you_mean(name, sorted(kinds))}"
            )
    wanted = set(names) or named_by(model)
    holders = _holders(model)
    return [
        module
        for module in reversed(list(model.modules())[1:])
        if type(module).__name__ in wanted
        and not isinstance(module, CONTAINERS)
        and next(module.parameters(), None) is not None
        and _is_apart(module, holders)
    ]


def named_by(model: nn.Module) -> set[str]:
    """Return the classes that models from transformers say are not to be split."""
    found: set[str] = set()
    for module in model.modules():
        names: Any = getattr(module, "_no_split_modules", None)
        found.update(names or ())
    return found


def check_kinds(model: nn.Module) -> None:
    """Refuse parameters of kinds that torch cannot shard.

    Raises:
        ConfigError: names the first one.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise ConfigError(
                f"the parameter {name} is 0-d, and fsdp2 shards along a first "
                "dimension; give it the shape (1,), or use engine ddp"
            )
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            continue
        if module.sparse and module.weight.requires_grad:
            raise ConfigError(
                f"the gradient of {name or type(module).__name__} is sparse, which "
                "fsdp2 cannot shard; build it without sparse=True, or use engine ddp"
            )


def check_types(model: nn.Module, apart: Sequence[nn.Module]) -> None:
    """Refuse trained parameters of several types in what is gathered together.

    Raises:
        ConfigError: says where, and which types.
    """
    taken: set[nn.Parameter] = set()
    for module in [*apart, model]:
        own = [p for p in module.parameters() if p not in taken]
        taken.update(own)
        types = {str(p.dtype).removeprefix("torch.") for p in own if p.requires_grad}
        if len(types) > 1:
            raise ConfigError(
                f"fsdp2 gathers the parameters of {type(module).__name__} together, "
                f"and they train in {' and '.join(sorted(types))}; use one type, or "
                "shard those of another by themselves, by distributed.shard_modules"
            )


def _holders(model: nn.Module) -> dict[Any, set[nn.Module]]:
    """Return for each parameter and each part the modules that hold it directly."""
    holders: dict[Any, set[nn.Module]] = {}
    for module in model.modules():
        for held in (*module._parameters.values(), *module._modules.values()):
            if held is not None:
                holders.setdefault(held, set()).add(module)
    return holders


def _is_apart(module: nn.Module, holders: dict[Any, set[nn.Module]]) -> bool:
    """Whether nothing in ``module`` is held outside of it, too."""
    inside = set(module.modules())
    held = [*module.parameters(), *list(module.modules())[1:]]
    return all(holders[each] <= inside for each in held)
