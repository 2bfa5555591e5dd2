"""The batch that training, evaluation and plugins share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch"]

#: What is done to a tensor, wherever it is; it is pickled with each batch of a worker.
Work = Callable[[Tensor], Tensor]


class Batch(dict[str, Tensor]):
    """The model's keyword arguments, with the rows that they were made from.

    Attributes:
        rows: what each row holds, in the order of the batch.
        loss_weight: items that the model's mean loss is a mean over: rows, or label
            tokens that are predicted; 0 without labels.
        deferred: key -> work that is left to the device: ``to`` does it once the
            tensor is there. Bytes of pictures are a quarter of what they become.
    """

    rows: list[dict[str, Any]]
    loss_weight: float
    deferred: Mapping[str, Work]

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        rows: list[dict[str, Any]],
        loss_weight: float,
        deferred: Mapping[str, Work] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.rows = rows
        self.loss_weight = loss_weight
        self.deferred = deferred or {}

    def finished(self) -> Batch:
        """Return the batch with nothing left to do, its tensors where they are."""
        if not self.deferred:
            return self
        done = {key: work(self[key]) for key, work in self.deferred.items()}
        return Batch({**self, **done}, self.rows, self.loss_weight)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the finished batch on ``device``; rows and weight stay on the host."""
        moved = {
            key: value.to(device, non_blocking=non_blocking)
            for key, value in self.items()
        }
        return Batch(moved, self.rows, self.loss_weight, self.deferred).finished()

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, for copies that do not block."""
        pinned = {key: value.pin_memory() for key, value in self.items()}
        return Batch(pinned, self.rows, self.loss_weight, self.deferred)
