"""Copy a state into host memory, so that it can be written while training goes on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from training.plugin import SEQUENCES

#: Bytes that each tensor begins at a multiple of: enough for every type.
ALIGNMENT = 64

#: What tells one memory of a tensor from another: device, address, bytes.
Key = tuple[torch.device, int, int]


class Staging:
    """Host memory for one copied state, used again for the next one.

    Tensors that share memory share it in the copy. On CUDA the memory is pinned, all
    copies run at once and are waited for together. It holds about as many bytes as the
    state, from the first copy on.
    """

    def __init__(self) -> None:
        #: Whether it is pinned -> blocks of memory, as ``blocks_of`` plans them.
        self._blocks: dict[bool, list[Tensor]] = {}

    def copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``state`` with every tensor copied to the host; complete on return.

        The copy that was returned before is overwritten.
        """
        found: dict[Key, UntypedStorage] = {}
        _collect(state, found)
        hosts: dict[Key, UntypedStorage] = {}
        for is_pinned in (False, True):
            keys = [key for key in found if (key[0].type == "cuda") == is_pinned]
            places = self._places([size for *_, size in keys], is_pinned)
            hosts |= dict(zip(keys, places, strict=True))
        for key, host in hosts.items():
            # Into pinned memory, so it does not wait here.
            host.copy_(found[key], non_blocking=True)
        # One wait for all copies, not one for each tensor.
        for device in {device for device, *_ in found if device.type == "cuda"}:
            torch.cuda.synchronize(device)
        return {name: _copied(value, hosts) for name, value in state.items()}

    def _places(self, sizes: list[int], is_pinned: bool) -> list[UntypedStorage]:
        """Return memory of each of these sizes in bytes, cut from few blocks."""
        wanted, places = blocks_of(sizes)
        blocks = self._blocks.get(is_pinned, [])
        if [block.numel() for block in blocks] != wanted:
            # Given back before more is taken. Pinning is slow; the first save pays.
            self._blocks[is_pinned] = blocks = []
            blocks += [
                torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned)
                for size in wanted
            ]
        return [
            # A storage of its own: a file holds it and nothing of its neighbours.
            blocks[index].untyped_storage()[start : start + size]
            for size, (index, start) in zip(sizes, places, strict=True)
        ]


def blocks_of(sizes: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Plan blocks for memory of these sizes, all in bytes.

    Of pinned memory torch takes as much as the next power of two. So each block is one,
    at most half of them empty at the very end: the largest that what is left would
    fill, and the largest pieces come first.

    Returns: sizes of the blocks, and (block, offset) of each of ``sizes``.
    """
    padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    blocks: list[int] = []
    free: list[int] = []
    places = [(0, 0)] * len(sizes)
    left = sum(padded)
    for index in sorted(range(len(sizes)), key=lambda i: -padded[i]):
        size = padded[index]
        block = next((i for i, room in enumerate(free) if room >= size), None)
        if block is None:
            block = len(blocks)
            filled = 1 << max(0, left.bit_length() - 1)  # at most what is left
            needed = 1 << max(0, size - 1).bit_length()
            blocks.append(max(filled, needed))
            free.append(blocks[-1])
        places[index] = block, blocks[block] - free[block]
        free[block] -= size
        left -= size
    return blocks, places


def _collect(value: Any, found: dict[Key, UntypedStorage]) -> None:
    """Note each memory that tensors in ``value`` lie in, once."""
    if isinstance(value, Tensor):
        if _is_flat(value):
            found.setdefault(_key(value), value.detach().untyped_storage())
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif type(value) in SEQUENCES:
        for item in value:
            _collect(item, found)


def _copied(value: Any, hosts: Mapping[Key, UntypedStorage]) -> Any:
    if isinstance(value, Tensor):
        tensor = value.detach()
        # No flat memory to copy: these wait, each by itself.
        if not _is_flat(tensor):
            return tensor.cpu().clone()
        view = torch.empty(0, dtype=tensor.dtype)
        offset, size, stride = tensor.storage_offset(), tensor.size(), tensor.stride()
        return view.set_(hosts[_key(tensor)], offset, size, stride)
    if isinstance(value, Mapping):
        copied = {name: _copied(item, hosts) for name, item in value.items()}
        return OrderedDict(copied) if type(value) is OrderedDict else copied
    if type(value) in SEQUENCES:  # a set, too: it is written while its owner goes on
        return type(value)(_copied(item, hosts) for item in value)
    return value


def _is_flat(tensor: Tensor) -> bool:
    """Whether its numbers are those in its memory, as those of ``z.conj()`` are not."""
    is_as_stored = not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    return tensor.layout == torch.strided and is_as_stored


def _key(tensor: Tensor) -> Key:
    storage = tensor.untyped_storage()
    return tensor.device, storage.data_ptr(), storage.nbytes()
