"""Predicted and true classes of labelled batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainbus_evaluation.forward import logits_of, targets_of
from trainbus_evaluation.generated import AnswerClasses
from trainbus_evaluation.metrics import accuracy, macro_f1
from training.errors import ConfigError, DataError

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


class Classes:
    """Predicted and true class of everything labelled, on the device until the end."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._shifts = _shifts_labels(model)
        self._answers = AnswerClasses(model)
        self._predicted: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, batch: Any, outputs: Any) -> None:
        """Count a batch on the device, whose ``outputs`` are known."""
        labels = targets_of(batch)
        logits = logits_of(outputs)
        if logits is None and isinstance(batch, Mapping) and self._answers.is_usable:
            predicted, target = self._answers.of(batch, labels)
        else:
            predicted, target = self._highest(logits, labels)
        self._predicted.append(predicted)
        self._targets.append(target)

    def results(self, metrics: Sequence[str]) -> dict[str, float]:
        """Return accuracy and F1, those that ``metrics`` names."""
        predicted, target = torch.cat(self._predicted), torch.cat(self._targets)
        if len(target) == 0:
            raise DataError(
                "nothing to evaluate: every label is -100; check the evaluation data"
            )
        functions = {"accuracy": accuracy, "f1": macro_f1}
        return {
            name: function(predicted, target)
            for name, function in functions.items()
            if name in metrics
        }

    def _highest(self, logits: Tensor | None, labels: Any) -> tuple[Tensor, Tensor]:
        if logits is not None and self._shifts and logits.dim() == 3:
            logits, labels = logits[:, :-1], labels[:, 1:]
        fits = (
            logits is not None
            and isinstance(labels, Tensor)
            and not labels.is_floating_point()
            and labels.shape == logits.shape[:-1]
        )
        if not fits:
            have = None if logits is None else tuple(logits.shape)
            kind = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels)
            raise ConfigError(
                "accuracy and f1 need logits (B, C) and class numbers (B,), or "
                f"(B, T, C) and (B, T), but the logits are {have} and the labels "
                f"{kind}; evaluate with metrics=['loss']"
            )
        assert logits is not None
        counts = labels != IGNORED
        return logits.argmax(-1)[counts], labels[counts]


def _shifts_labels(model: nn.Module) -> bool:
    """Whether logit t of ``model`` predicts label t + 1, as in a decoder-only model."""
    can_generate = getattr(model, "can_generate", None)
    config = getattr(model, "config", None)
    is_decoder_only = not getattr(config, "is_encoder_decoder", False)
    return callable(can_generate) and bool(can_generate()) and is_decoder_only
