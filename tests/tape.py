"""A recorder for a CPU: as strict as a CUDA graph about what a recording fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "is_nonzero", "nonzero")


class Tape(TorchDispatchMode):
    """Notes operations with the very tensors and numbers that they were given.

    A replay runs them again and writes what they return to where the recording had it.
    What the recording changed in place is put back: a recording does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, dict[int, Tensor]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        if name in READS:
            raise RuntimeError(f"{name} while recording")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)]
        if func._schema.is_mutable:
            for tensor in given:
                self.before.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        result = func(*args, **kwargs)
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        new = {
            index: leaf
            for index, leaf in enumerate(tree_leaves(result))
            if _is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in places
        }
        if new or func._schema.is_mutable:  # a mere view stays a view
            self.operations.append((func, args, kwargs, new))
        return result

    def undo(self) -> None:
        for tensor, value in self.before.values():
            tensor.copy_(value)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self.operations:
                made = tree_leaves(func(*args, **kwargs))
                for index, output in outputs.items():
                    output.copy_(made[index])


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


class TapeRecorder:
    """A ``Recorder`` that counts what is asked of it."""

    def __init__(self) -> None:
        self.recordings = self.replays = self.asides = 0

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.asides += 1
        yield

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        tape = Tape()
        try:
            with tape:
                work()
        finally:
            with torch.no_grad():
                tape.undo()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay
