"""The batch that training, evaluation and plugins share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch"]


class Batch(dict[str, Tensor]):
    """The model's keyword arguments, with the rows that they were made from.

    Attributes:
        rows: what each row holds, in the order of the batch.
        loss_weight: items that the model's mean loss is a mean over: rows, or label
            tokens that are predicted; 0 without labels.
    """

    rows: list[dict[str, Any]]
    loss_weight: float

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        rows: list[dict[str, Any]],
        loss_weight: float,
    ) -> None:
        super().__init__(tensors)
        self.rows = rows
        self.loss_weight = loss_weight

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on ``device``; rows and weight stay on the host."""
        moved = {
            key: value.to(device, non_blocking=non_blocking)
            for key, value in self.items()
        }
        return Batch(moved, self.rows, self.loss_weight)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, for copies that do not block."""
        pinned = {key: value.pin_memory() for key, value in self.items()}
        return Batch(pinned, self.rows, self.loss_weight)
