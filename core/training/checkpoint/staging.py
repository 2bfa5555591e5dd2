"""Copy a state into host memory, so that it can be written while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Staging:
    """Host memory for one copied state, used again for the next one.

    Tensors that share memory share it in the copy. On CUDA the memory is pinned, all
    copies run at once and are waited for together. It holds as many bytes as the
    state, from the first copy on.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``state`` with every tensor copied to the host; complete on return.

        The copy that was returned before is overwritten.
        """
        self._copied: dict[tuple[torch.device, int, int], Tensor] = {}
        devices: set[torch.device] = set()
        result = {name: self._value(value, devices) for name, value in state.items()}
        # One wait for all copies, not one for each tensor.
        for device in devices:
            torch.cuda.synchronize(device)
        # What the last state had more is given back.
        del self._buffers[len(self._copied) :]
        return result

    def _value(self, value: Any, devices: set[torch.device]) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), devices)
        if isinstance(value, Mapping):
            return {name: self._value(item, devices) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._value(item, devices) for item in value]
        return value

    def _tensor(self, tensor: Tensor, devices: set[torch.device]) -> Tensor:
        # No flat storage to copy: these wait, each by itself.
        if tensor.layout != torch.strided or tensor.is_quantized:
            return tensor.cpu().clone()
        storage = tensor.untyped_storage()
        key = (tensor.device, storage.data_ptr(), storage.nbytes())
        if key not in self._copied:
            if tensor.is_cuda:
                devices.add(tensor.device)
            source = torch.empty(0, dtype=torch.uint8, device=tensor.device)
            source.set_(storage)
            # The whole storage once: views and tied weights share it.
            buffer = self._buffer(len(self._copied), storage.nbytes(), tensor.is_cuda)
            # Into pinned memory, so it does not wait here.
            self._copied[key] = buffer.copy_(source, non_blocking=True)
        host = self._copied[key].untyped_storage()
        view = torch.empty(0, dtype=tensor.dtype)
        offset, size, stride = tensor.storage_offset(), tensor.size(), tensor.stride()
        return view.set_(host, offset, size, stride)

    def _buffer(self, index: int, num_bytes: int, is_pinned: bool) -> Tensor:
        """Return the buffer at ``index``, a new one if its size has changed."""
        if index == len(self._buffers):
            self._buffers.append(torch.empty(0, dtype=torch.uint8))
        buffer = self._buffers[index]
        if buffer.numel() != num_bytes or buffer.is_pinned() != is_pinned:
            # Pinning is slow; it is paid for in the first save alone.
            buffer = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_pinned)
            self._buffers[index] = buffer
        return buffer
