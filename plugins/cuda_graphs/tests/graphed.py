"""Trainers whose steps are recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from toy import Regression, assert_equal_weights, regression_batches

from training import Trainer

RATE = 2.0**-6  # a number that float32 and float64 share


def trainer_of(
    model: nn.Module | None = None, *callbacks: Any, **options: Any
) -> Trainer:
    model = model or Regression()
    kind = options.pop("optimizer", torch.optim.AdamW)
    return Trainer(
        model=model,
        train_dataloader=options.pop("batches", regression_batches(10)),
        optimizer=kind(model.parameters(), lr=RATE, fused=True),
        callbacks=callbacks,
        device="cpu",
        **{"cuda_graphs": True, **options},
    )


def assert_same_weights(left: Trainer, right: Trainer) -> None:
    assert_equal_weights(left.model, right.model)
