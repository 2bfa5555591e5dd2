"""Whether all processes have the same options and model, and still the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from trainbus_distributed.buffers import MovingBuffers
from trainbus_distributed.group import Group
from training import ConfigError, PluginError

if TYPE_CHECKING:
    from training import Trainer

T = TypeVar("T")

#: Of the words of a weight, for its digest; and of what stands before them.
FACTORS, MULTIPLIER = 2**20, 6364136223846793005


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
    found = _that_differ(own, group, "of a model")
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


def require_alike(
    trainer: Trainer,
    group: Group,
    buffers: MovingBuffers,
    parts: tuple[type, ...],
) -> None:
    """Refuse weights or learning rates that differ from process to process.

    The same gradients move the same weights to the same bits, so all bits are compared.
    Buffers that differ follow main: any pass may have moved them.

    Args:
        trainer: the running one.
        group: the processes.
        buffers: those that are known to move are not compared.
        parts: kinds of tensors of which each process has another part.
    Raises:
        PluginError: on all processes; names the first that differs.
    """
    modules = {"model": trainer.model, **trainer.criterion.modules()}
    weights = _weights_of(modules, trainer)
    kept = _kept_buffers(modules, buffers.modules)
    held = {**weights, **{name: buffer for name, (_, buffer) in kept.items()}}
    whole = {name: each for name, each in held.items() if not isinstance(each, parts)}
    told = digests(whole.values(), trainer.device)
    digest_of = dict(zip(whole, told, strict=True))
    groups = trainer.optimizer.param_groups
    # As texts: NaN is not equal to itself.
    fixed: dict[str, Any] = {
        f"the learning rate of group {i}": repr(float(each["lr"]))
        for i, each in enumerate(groups)
    }
    fixed |= {f"whether {n} trains": w.requires_grad for n, w in weights.items()}
    fixed |= {n: digest_of.pop(n) for n in weights if n in digest_of}
    fixed |= {f"whether there is a buffer {n}": True for n in digest_of}
    # What is left are buffers, which may part.
    found = _that_differ((fixed, digest_of), group, "of weights")
    for rank, name in _parted([each for each, _ in found]):
        raise PluginError(
            f"{name} is not the same on rank {rank} as on rank 0 after step "
            f"{trainer.step}: a plugin or the script changes it on some processes "
            "only; let all of them do the same"
        )
    moved = {kept[name][0]: None for _, name in _parted([each for _, each in found])}
    if moved:
        buffers.follow(list(moved))


def _parted(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yield (rank, name) of all that is not as the main process has it."""
    for rank, other in enumerate(found):
        for name in dict.fromkeys(chain(found[0], other)):
            if other.get(name) != found[0].get(name):
                yield rank, name


def _that_differ(own: T, group: Group, what: str) -> list[T]:
    """Return what each process has, or nothing where all have the same.

    A digest is sent; only where that differs all of it is.
    """
    digest = sha256(repr(own).encode()).hexdigest()
    if len(set(group.gather(digest, f"{what}, in short"))) == 1:
        return []
    return group.gather(own, what)


def _weights_of(
    modules: Mapping[str, nn.Module], trainer: Trainer
) -> dict[str, nn.Parameter]:
    """Return the parameters of ``modules`` and of the optimizer, by name."""
    weights = {
        f"{kind}.{name}": weight
        for kind, module in modules.items()
        for name, weight in module.named_parameters()
    }
    known = set(map(id, weights.values()))
    places = {id(v): f"loss.{n}" for n, v in trainer.criterion.tensors().items()}
    for number, group in enumerate(trainer.optimizer.param_groups):
        for index, weight in enumerate(group["params"]):
            if id(weight) not in known:
                place = f"parameter {index} of group {number} of the optimizer"
                weights[places.get(id(weight), place)] = weight
    return weights


def _kept_buffers(
    modules: Mapping[str, nn.Module], moving: Set[nn.Module]
) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the buffers that nothing is known to move, and whose they are, by name.

    Without those that no checkpoint holds: caches, which an evaluation may fill by the
    part that a process has.
    """
    return {
        f"{kind}.{place}.{name}" if place else f"{kind}.{name}": (part, buffer)
        for kind, module in modules.items()
        for place, part in module.named_modules()
        if part not in moving
        for name, buffer in part._buffers.items()
        if buffer is not None and name not in part._non_persistent_buffers_set
    }


@torch.no_grad()
def digests(tensors: Iterable[Tensor], device: torch.device) -> list[int]:
    """Return a number for each that tells its bits and their order; one read for all.

    A sum with factors drawn once, in integers: the same bits however it is computed,
    and quicker than to bring all weights to the host.
    """
    found = [_digest(tensor).to(device) for tensor in tensors]
    numbers: list[int] = torch.stack(found).tolist() if found else []
    return numbers


def _digest(tensor: Tensor) -> Tensor:
    kind = {1: torch.uint8, 2: torch.int16}.get(tensor.element_size(), torch.int32)
    # A CPU keeps so many in its cache; a card is to be called less often.
    size = FACTORS // 16 if tensor.device.type == "cpu" else FACTORS
    factors = _factors(tensor.device)
    digest = torch.zeros((), dtype=torch.long, device=tensor.device)
    whole = tensor.detach().to_dense().resolve_conj().resolve_neg().contiguous()
    for words in torch.split(whole.reshape(-1).view(kind), size):
        # All modulo 2**64; odd, so that no word is lost.
        digest = digest * MULTIPLIER + (words * factors[: len(words)]).sum()
    return digest


@cache
def _factors(device: torch.device) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return (torch.randint(2**62, (FACTORS,), generator=drawn) * 2 + 1).to(device)
