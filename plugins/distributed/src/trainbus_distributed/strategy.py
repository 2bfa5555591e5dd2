"""What every engine has in common: the group, the device, and main's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from trainbus_distributed.group import Group
from training.plugin import Strategy

if TYPE_CHECKING:
    from training import Trainer

T = TypeVar("T")


class GroupStrategy(Strategy):
    """Answers for a process of a group; the engines derive from it.

    Args:
        trainer: that is being built.
        group: the processes of the run.
        data: as ``Strategy.data``.
    """

    def __init__(self, trainer: Trainer, group: Group, data: str) -> None:
        self.trainer = trainer
        self.group = group
        self.data = data

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return self.group.rank

    @property
    def size(self) -> int:
        """How many processes compute the run."""
        return self.group.size

    def choose_device(self, wanted: torch.device) -> torch.device:
        """Return the GPU of this process's number, or the CPU where that is wanted."""
        if wanted.type != "cuda":
            return wanted
        device = torch.device("cuda", self.group.local_rank)
        torch.cuda.set_device(device)
        return device

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        return self.group.sum(values)

    def gather(self, value: T) -> list[T]:
        """Return each process's value."""
        return self.group.gather(value)

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do ``work``."""
        return self.group.on_main(work)

    def on_each(self, work: Callable[[], T]) -> T:
        """Let each process do ``work``."""
        return self.group.on_each(work)

    def exchanging(self, is_last: bool) -> AbstractContextManager[Any]:
        """Return what a forward and backward pass runs in.

        Args:
            is_last: whether gradients are to be exchanged in it.
        """
        return nullcontext()

    def empty_loss(self, loss: Tensor, is_last: bool) -> Tensor | None:
        """Return what goes backward for a batch that weighs nothing; None: nothing.

        Args:
            loss: what its forward pass returned; a mean over nothing is NaN.
            is_last: whether gradients are to be exchanged.
        """
        return loss * 0.0

    def exchanged(self, parameter: nn.Parameter) -> bool:
        """Whether the engine itself exchanges this parameter's gradient."""
        return False
