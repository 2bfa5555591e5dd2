"""A device without data that stands in for a GPU, so that waits show on any machine.

On torch's meta device shapes and types are real and numbers do not exist. Here a run on
it takes the kernels that it would take on CUDA, and whatever would make the CPU wait
there is told: a number that is read, a shape that depends on numbers, a copy that is
waited for. It shows nothing of autocast, streams, memory, recorded graphs or speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _foreach_utils, _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from training.bus.callback import Callback
from training.hardware.readback import Readback
from training.hardware.strategy import Strategy
from training.loop.precision import Precision

META = torch.device("meta")

#: What torch keeps of the devices that its many-tensor and fused kernels know.
_KERNEL_DEVICES = (
    "_get_foreach_kernels_supported_devices",
    "_get_fused_kernels_supported_devices",
)
_OPTIMIZERS = ("optimizer", "adam", "sgd", "adamw", "adagrad")
#: Kernels that write in place and that torch has not described for shapes alone.
_UNDESCRIBED = {"aten::_fused_sgd_"}

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}

#: Told with the name of an operation that waits.
Note = Callable[[str], None]


class OnMeta(Callback):
    """Places a run on the meta device; its model and optimizer are there already."""

    name = "kit_meta_device"
    hook_api = ">=1.1,<2"

    def make_strategy(self) -> Strategy:
        """Answer as one process without data."""
        return _Meta()


class _Meta(Strategy):
    def choose_device(self, wanted: torch.device) -> torch.device:
        return META


@contextmanager
def meta_device_as_cuda(note: Note) -> Iterator[None]:
    """Let the meta device be used as CUDA would be, and tell of every wait.

    Optimizers have to be built inside, with their parameters on the device.

    Args:
        note: called at each wait, with what waits; its caller's stack says who.
    """

    def is_here(readback: Readback) -> bool:
        return not _is_meta(readback._host)

    def value(readback: Readback) -> float:
        if is_here(readback):
            return float(readback._host)
        note("a number on its way")
        return 0.0

    def synchronize(*_: Any, **__: Any) -> None:
        note("synchronize")

    with ExitStack() as stack:
        for name in _KERNEL_DEVICES:
            known = [*getattr(_foreach_utils, name)(), "meta"]
            for module in (_foreach_utils, *map(_optimizer_module, _OPTIMIZERS)):
                if hasattr(module, name):
                    stack.enter_context(
                        patch.object(module, name, lambda known=known: known)
                    )
        stack.enter_context(patch.object(Readback, "is_here", property(is_here)))
        stack.enter_context(patch.object(Readback, "value", value))
        # Autocast does not know the device.
        nothing = lambda *_, **__: nullcontext()  # noqa: E731
        stack.enter_context(patch.object(Precision, "autocast", nothing))
        stack.enter_context(patch.object(torch.cuda, "synchronize", synchronize))
        stack.enter_context(_Waits(note))
        yield


def _optimizer_module(name: str) -> Any:
    return sys.modules.get(f"torch.optim.{name}")


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each operation, and tells of those that wait for a device."""

    def __init__(self, note: Note) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = note

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in _UNDESCRIBED:
            return None
        if name in ("aten::_to_copy", "aten::copy_"):
            return self._copied(func, args, kwargs)
        if name in _INDEXING:
            return self._indexed(func, name, args, kwargs)
        tags = func.tags
        reads = (
            torch.Tag.data_dependent_output in tags
            or torch.Tag.dynamic_output_shape in tags
        )
        if reads and any(map(_is_meta, _pytree.tree_leaves((args, kwargs)))):
            return self._read(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _indexed(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Index; tell of it where the indices are a mask, which is counted first."""
        if not any(map(_is_mask, args[1])):
            return func(*args, **kwargs)
        self._note("a mask as an index")
        if name == "aten::index":  # as if the mask chose everything
            return func(args[0], _places(args[1]), **kwargs)
        return args[0] if name.endswith("_") else args[0].clone()

    def _read(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Tell of an operation whose answer is numbers; return some answer."""
        reads = name == "aten::_local_scalar_dense"
        self._note("a number that is read" if reads else name.removeprefix("aten::"))
        if name == "aten::_local_scalar_dense":
            return torch.zeros((), dtype=args[0].dtype).item()
        if name == "aten::equal":
            return True
        if name == "aten::nonzero":
            shape = args[0].numel(), args[0].dim()
            return torch.empty(shape, dtype=torch.int64, device=META)
        if name == "aten::masked_select":
            return torch.empty(args[0].numel(), dtype=args[0].dtype, device=META)
        return func(*args, **kwargs)  # which torch refuses: nothing is known of it

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Copy; tell of it where one side is the host and it is waited for."""
        copies_in_place = func._schema.name == "aten::copy_"
        source = args[1] if copies_in_place else args[0]
        target = args[0].device if copies_in_place else kwargs.get("device")
        place = source.device if target is None else torch.device(target)
        flag = args[2] if copies_in_place and len(args) > 2 else False
        if place.type != source.device.type and not kwargs.get("non_blocking", flag):
            self._note(f"a copy to {'the host' if source.is_meta else 'the device'}")
        if not source.is_meta or place.type == "meta":
            return func(*args, **kwargs)
        if copies_in_place:
            return args[0]
        dtype = kwargs.get("dtype") or source.dtype
        return torch.zeros(source.shape, dtype=dtype)


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _is_mask(index: Any) -> bool:
    return _is_meta(index) and index.dtype in (torch.bool, torch.uint8)


def _places(indices: Any) -> list[Any]:
    """Return ``indices`` with a number for each element in place of a mask."""
    found: list[Any] = []
    for index in indices:
        if _is_mask(index):
            place = torch.empty(index.numel(), dtype=torch.int64, device=META)
            found += [place] * index.dim()
        else:
            found.append(index)
    return found
