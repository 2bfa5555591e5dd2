"""The batch that training, evaluation and plugins share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["VQABatch"]


class VQABatch(dict[str, Tensor]):
    """The model's keyword arguments, with the rows that they were made from.

    Keys, with B questions of Q tokens and answers of A tokens, padding included:
        pixel_values: (B, 3, H, W), float32.
        input_ids, attention_mask: (B, Q), int64.
        decoder_input_ids: (B, A), int64; the first is the model's start token.
        decoder_attention_mask: (B, A), int64.
        labels: (B, A), int64; as decoder_input_ids, -100 at padding.

    Attributes:
        rows: B dicts: question_id, question, answer, answers, kind, image.
        loss_weight: label tokens that the model's mean loss is a mean over.
    """

    rows: list[dict[str, Any]]
    loss_weight: int

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        rows: list[dict[str, Any]],
        loss_weight: int,
    ) -> None:
        super().__init__(tensors)
        self.rows = rows
        self.loss_weight = loss_weight

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VQABatch:
        """Return the batch on ``device``; rows and weight stay on the host."""
        moved = {
            key: value.to(device, non_blocking=non_blocking)
            for key, value in self.items()
        }
        return VQABatch(moved, self.rows, self.loss_weight)

    def pin_memory(self) -> VQABatch:
        """Return the batch in page-locked memory, for copies that do not block."""
        pinned = {key: value.pin_memory() for key, value in self.items()}
        return VQABatch(pinned, self.rows, self.loss_weight)
