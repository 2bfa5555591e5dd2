"""ViLT for question answering whose loss leaves out rows without an answer."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import ViltForQuestionAnswering

__all__ = ["IGNORED", "ViltVQA"]

#: The score of each answer in a row that is no part of the loss.
IGNORED = -100.0


class ViltVQA(ViltForQuestionAnswering):  # type: ignore[misc]
    """The library's class, whose loss has a share of every row in the batch."""

    def forward(self, *args: Any, labels: Tensor | None = None, **asked: Any) -> Any:
        """Return the library's outputs; the loss is the mean over rows with answers.

        Args:
            args: as the library's.
            labels: scores (B, answers), from 0 to 1; IGNORED in rows to leave out.
            asked: as the library's.
        """
        outputs = super().forward(*args, **asked)
        if labels is None:
            return outputs
        is_known = labels[:, 0] != IGNORED
        losses = binary_cross_entropy_with_logits(
            outputs[0], labels.clamp(min=0), reduction="none"
        ).sum(dim=1)
        loss = (losses * is_known).sum() / is_known.sum()
        if isinstance(outputs, tuple):  # asked for by return_dict=False
            return (loss, *outputs)
        # Anew: the loss comes first, where its place is asked for.
        return type(outputs)(loss=loss, **outputs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kw: Any) -> Any:
        """Write a folder that plain transformers loads as its own class."""
        result = super().save_pretrained(save_directory, **kw)
        # The library wrote this subclass's name, which it could not find again.
        self.config.architectures = ["ViltForQuestionAnswering"]
        self.config.save_pretrained(save_directory)
        return result
