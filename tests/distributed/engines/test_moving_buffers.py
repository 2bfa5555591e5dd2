"""Buffers that passes move in training follow the main process, whoever keeps them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Trainer

pytestmark = pytest.mark.distributed

#: Ways to keep a running mean of the rows.
MOVING = ("in place", "by another tensor", "by a view", "by data", "on one")


class Centre(nn.Module):
    """Takes a running mean of the rows off, as DINO's centre; or keeps still."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.passes = way, 0
        self.layer = nn.Linear(4, 4)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(2, 4))
        if way == "still":
            self.center[1] = float("nan")  # which equals nothing, itself included

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        self.passes += self.training
        if self.training:
            self.move(x.detach().mean(0).expand(2, 4))
        return x - self.center[0]

    def move(self, mean: Tensor) -> None:
        if self.way == "by the part":
            self.center = mean.new_zeros(2 + int(mean[0, 0] > 0), 4)
            return
        moved = 0.9 * self.center + 0.1 * mean
        if self.way == "by another tensor":
            self.center = moved
        elif self.way == "by a view":
            self.center = moved.t().contiguous().t()
        elif self.way == "by data":
            self.center.data.copy_(moved)
        elif (
            self.way == "in place"
            or (self.way == "late" and self.passes > 3)
            or (self.way == "on one" and mean[0, 0] > 0)
        ):
            self.center.copy_(moved)


class Loss(nn.Module):
    """A mean of squares, and a running mean of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = Centre("in place")

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.beside(outputs).sum(1), labels)


class Heard(logging.Handler):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def ended(
    way: str, engine: str, folder: str | None = None, resume: Any = None
) -> tuple[list[Any], list[str]]:
    """Return weights and buffers at the end of a run, and what is told of buffers."""
    torch.manual_seed(0)
    model, loss = Centre(way), Loss() if way == "in the loss" else None
    rows = TensorDataset(torch.randn(12, 4), torch.randn(12))
    trainer = Trainer(
        model,
        DataLoader(rows, batch_size=4, shuffle=True),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=loss or (lambda outputs, y: nn.functional.mse_loss(outputs.sum(1), y)),
        loss_per="samples",
        plugins=[{"distributed": {"engine": engine}}],
        max_steps=4 if folder else None,
        num_epochs=3,
        seed=1,
        device="cpu",
    )
    heard = Heard()
    log = logging.getLogger("trainbus_distributed.buffers")
    log.addHandler(heard)
    try:
        trainer.train(resume=resume)
    finally:
        log.removeHandler(heard)
    if folder:
        trainer.save_checkpoint(folder)
    parts = [*model.buffers(), *(loss.buffers() if loss else ())]
    weights = trainer.strategy.full(dict(model.named_parameters()))
    kept = [w.tolist() for w in weights.values()] if trainer.is_main else []
    return [[b.tolist() for b in parts], kept], heard.told


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("way", [*MOVING, "late", "in the loss"])
def test_d17_buffers_that_passes_move_follow_main(
    two: Ranks, way: str, engine: str
) -> None:
    (first, told), (second, quiet) = two.run(ended, way, engine)
    assert first[0] == second[0]
    (line,) = {each for each in told if "follow the main process" in each}
    assert "Centre (center) move in training" in line
    assert not quiet


@pytest.mark.parametrize("way", [*MOVING, "in the loss"])
def test_d17_a_run_whose_buffers_move_resumes_to_the_bit(
    two: Ranks, way: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "4.pt")
    straight = two.run(ended, way, "ddp")
    two.run(ended, way, "ddp", path)
    assert [each for each, _ in two.run(ended, way, "ddp", None, path)] == [
        each for each, _ in straight
    ]


def test_d17_buffers_that_keep_still_are_not_told_of(two: Ranks) -> None:
    assert [told for _, told in two.run(ended, "still", "ddp")] == [[], []]


def test_d17_buffers_as_wide_as_a_part_stay_as_they_are(two: Ranks) -> None:
    (_, told), _ = two.run(ended, "by the part", "ddp")
    assert any("each keeps its own" in line for line in told)
