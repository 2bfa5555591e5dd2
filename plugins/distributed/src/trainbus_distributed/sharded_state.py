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
    found = list(_sharded(state))
    # Main tells which are one: an empty part of another process has no memory to tell.
    firsts = group.on_main(lambda: _firsts(found))
    wholes: list[Tensor] = []
    for index, first in enumerate(firsts):
        if first != index:
            wholes.append(wholes[first])
            continue
        # A collective; what it returns is on the device until it has been copied.
        whole = found[index].full_tensor().detach()
        wholes.append(whole.to("cpu" if group.rank == 0 else "meta"))
    rest = iter(wholes)
    return _mapped(state, lambda _: next(rest))


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


def _sharded(value: Any) -> Iterator[DTensor]:
    if isinstance(value, DTensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _sharded(item)
    elif isinstance(value, SEQUENCES):
        for item in value:
            yield from _sharded(item)


def _mapped(value: Any, change: Callable[[DTensor], Tensor]) -> Any:
    """Return ``value`` with its sharded tensors changed, in the order they are met."""
    if isinstance(value, DTensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {key: _mapped(item, change) for key, item in value.items()}
        return _as(value, items)
    if isinstance(value, SEQUENCES):
        return type(value)(_mapped(item, change) for item in value)
    return value


def _as(like: Any, items: dict[Any, Any]) -> Any:
    """Return ``items`` as a mapping of the same class."""
    return items if type(like) is dict else type(like)(items)


def _firsts(found: list[DTensor]) -> list[int]:
    """Return for each the index of the first one that lies in the same memory."""
    first: dict[Any, int] = {}
    keys = []
    for tensor in found:
        local = tensor.to_local()
        keys.append((local.data_ptr(), local.dtype, tensor.shape, tensor.stride()))
    return [first.setdefault(key, index) for index, key in enumerate(keys)]
