"""A label that the loss leaves out, and that no batch has before the last one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import Trainer

LEFT_OUT = 0
Batch = tuple[Tensor, Tensor]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs)
        return logits.flatten(0, 1)


def own_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels.flatten(), ignore_index=LEFT_OUT)


class FlatLoss(nn.CrossEntropyLoss):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels.flatten())


def num_left(batch: Batch) -> float:
    return float((batch[1] != LEFT_OUT).sum())


def own_step(model: nn.Module, batch: Batch) -> Mapping[str, Any]:
    loss = own_loss(model(batch[0]), batch[1])
    return {"loss": loss, "weight": num_left(batch)}


SAID: dict[str, Callable[[], dict[str, Any]]] = {
    "the index by torch's own loss": lambda: {
        "loss_fn": FlatLoss(ignore_index=LEFT_OUT)
    },
    "the number by loss_per": lambda: {"loss_fn": own_loss, "loss_per": num_left},
    "the number by step_fn": lambda: {"step_fn": own_step},
}


def off_by(make: Callable[[], dict[str, Any]]) -> float:
    """Return how far four batches a window move the weights off one large batch."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 6, 4, generator=generator)
    labels = torch.randint(1, 7, (16, 6), generator=generator)
    labels[12:, 2:] = LEFT_OUT
    model = Tagger()

    def update(size: int) -> Tensor:
        mine = copy.deepcopy(model)
        pairs = zip(inputs.split(size), labels.split(size), strict=True)
        Trainer(
            mine,
            list(pairs),
            optimizer=torch.optim.SGD(mine.parameters(), lr=0.1),
            gradient_accumulation_steps=len(inputs) // size,
            device="cpu",
            **make(),
        ).train()
        return (mine.head.weight - model.head.weight).detach()

    whole = update(len(inputs))
    return float((update(4) - whole).norm() / whole.norm())


@pytest.mark.parametrize("way", SAID)
def test_a_label_that_only_late_batches_have_is_left_out_where_that_is_said(
    way: str,
) -> None:
    assert off_by(SAID[way]) < 1e-5


def test_a_label_that_only_late_batches_have_is_counted_where_nobody_says() -> None:
    assert off_by(lambda: {"loss_fn": own_loss}) > 0.1
