"""Gather sharded tensors of a state one by one, and part whole ones again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from trainbus_distributed.group import Group

SEQUENCES = (list, tuple)


def gathered(state: Any, group: Group) -> Any:
    """Return ``state`` with its sharded tensors whole: on the host of main alone.

    On other processes they have no data (device ``meta``): nothing is kept there. What
    lies in one memory, as tied weights do, is gathered once and lies in one again.

    Args:
        state: nested mappings and sequences; the same structure on each process.
        group: the processes.
    """
    found = [tensor for _, tensor in sharded(state)]
    wholes: list[Tensor] = []
    for index, first in enumerate(firsts(found, group)):
        if first != index:
            wholes.append(wholes[first])
            continue
        # A collective; what it returns is on the device until it has been copied.
        whole = found[index].full_tensor().detach()
        wholes.append(whole.to("cpu" if group.rank == 0 else "meta"))
    rest = iter(wholes)
    return mapped(state, lambda _: next(rest))


def parted(state: Any, like: Any) -> Any:
    """Return ``state``, whole tensors, with this process's part where it is sharded.

    No process waits for another: each has the whole already.

    Args:
        state: nested mappings and sequences.
        like: the same structure, or of a part of it; a single tensor there speaks for
            all tensors of its shape below, as a parameter does for its moments.
    """
    if isinstance(state, Mapping):
        parts = {k: parted(v, _below(like, k)) for k, v in state.items()}
        return _as(state, parts)
    if isinstance(state, SEQUENCES):
        return type(state)(parted(v, _below(like, i)) for i, v in enumerate(state))
    is_whole = isinstance(state, Tensor) and not isinstance(state, DTensor)
    if is_whole and isinstance(like, DTensor) and state.shape == like.shape:
        mesh, placements = like.device_mesh, like.placements
        # Of one's own: else main's would be sent to all.
        moved = state.detach().to(like.device)
        return distribute_tensor(moved, mesh, placements, src_data_rank=None)
    return state


def _below(like: Any, key: Any) -> Any:
    if isinstance(like, Mapping):
        return like.get(key)
    if isinstance(like, SEQUENCES):
        return like[key] if key < len(like) else None
    return like


def sharded(value: Any, *place: Any) -> Iterator[tuple[list[Any], DTensor]]:
    """Yield each sharded tensor below ``value``, and the keys that lead to it."""
    if isinstance(value, DTensor):
        yield list(place), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from sharded(item, *place, key)
    elif isinstance(value, SEQUENCES):
        for index, item in enumerate(value):
            yield from sharded(item, *place, index)


def mapped(value: Any, change: Callable[[DTensor], Tensor | None]) -> Any:
    """Return ``value`` with its sharded tensors changed, in the order they are met."""
    if isinstance(value, DTensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {key: mapped(item, change) for key, item in value.items()}
        return _as(value, items)
    if isinstance(value, SEQUENCES):
        return type(value)(mapped(item, change) for item in value)
    return value


def _as(like: Any, items: dict[Any, Any]) -> Any:
    """Return ``items`` as a mapping of the same class."""
    return items if type(like) is dict else type(like)(items)


def firsts(found: list[DTensor], group: Group) -> list[int]:
    """Return for each the index of the first one that lies in the same memory."""

    def on_main() -> list[int]:
        first: dict[Any, int] = {}
        keys = []
        for tensor in found:
            local = tensor.to_local()
            keys.append((local.data_ptr(), local.dtype, tensor.shape, tensor.stride()))
        return [first.setdefault(key, index) for index, key in enumerate(keys)]

    # Main tells which are one: an empty part of another process has no memory to tell.
    return group.on_main(on_main, "of shared memory")
