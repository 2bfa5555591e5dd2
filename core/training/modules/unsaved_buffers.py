"""Name the buffers that a run moves and no checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.modules.frozen_weights import WHOLE, digest_of, tensor_version
from training.modules.plain_names import named_parts, some

log = logging.getLogger(__name__)


class UnsavedBuffers:
    """The buffers that are in no ``state_dict``, as they are when this is made.

    Reads all of them once: a millisecond a megabyte. And the shapes of the others.

    Args:
        modules: part -> module, such as the model.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self._before = {
            name: (tensor_version(value), value.shape, digest_of({"": value}, [""]))
            for name, value in self._buffers()
        }
        self._shapes = self._loaded_shapes()

    def warn_of_moved(self) -> None:
        """Warn, once, of those that hold other numbers by now.

        Reads only those that somebody has written to. And of those that are saved with
        another shape than the model is built with, which torch refuses to load.
        """
        now = self._loaded_shapes()
        if grown := [
            n for n, shape in self._shapes.items() if now.get(n, shape) != shape
        ]:
            log.warning(
                "training changes the shape of buffers: %s; the model as it is built "
                "cannot load them from a checkpoint; keep them at one size, begin with "
                "None, or have their module load them (_load_from_state_dict)",
                some(grown),
            )
            self._shapes = {}
        moved = [
            name for name, value in self._buffers() if self._has_moved(name, value)
        ]
        if moved:
            log.warning(
                "training moves buffers that no checkpoint holds, since they are "
                "registered with persistent=False: %s; a resumed run begins with "
                "others; leave persistent=False out where they count",
                some(moved),
            )
            self._before = {}

    def _has_moved(self, name: str, value: Tensor) -> bool:
        mark, shape, digest = self._before.get(name, (None, None, ""))
        # Of another size it is a cache, which is filled again as it is needed.
        if shape != value.shape or mark == tensor_version(value):
            return False
        return digest_of({"": value}, [""]) != digest

    def _loaded_shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of saved buffers; no module of them loads by itself."""
        return {
            f"{place}.{name}": each.shape
            for place, module in named_parts(self._modules)
            if type(module)._load_from_state_dict is nn.Module._load_from_state_dict
            for name, each in module._buffers.items()
            if each is not None and name not in module._non_persistent_buffers_set
        }

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for place, module in named_parts(self._modules):
            for name in sorted(module._non_persistent_buffers_set):
                value: Any = module._buffers.get(name)
                # Parts of one, as of a sharded model, are not read.
                if type(value) in WHOLE and holds_numbers(value):
                    yield f"{place}.{name}", value


def holds_numbers(value: Tensor) -> bool:
    """Whether it has numbers of its own, and counts how often they are written to."""
    has_data = value.device.type != "meta" and value.layout is torch.strided
    # One of inference mode counts no versions.
    is_odd = value.is_complex() or value.is_quantized or value.is_inference()
    return has_data and not is_odd and not value.is_nested
