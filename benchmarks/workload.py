"""The work that every contestant of ``overhead.py`` does, and the same work by hand.

A small MLP on batches that lie ready in memory, AdamW, fp32 on one CPU core: a step of
0.4 to 1.2 ms, by the machine, in which whatever a trainer adds can be seen. The short
one is less than half of that: a layer less, and SGD.
"""

from __future__ import annotations

import copy
import csv
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

NUM_FEATURES = 32
NUM_CLASSES = 10
BATCH_SIZE = 32
WIDTH = 64
LEARNING_RATE = 1e-3
#: The schedule halves the rate after each epoch, so that it shows in the weights.
LR_GAMMA = 0.5
#: More than any run has epochs: early stopping watches and never stops.
PATIENCE = 1000


class Batches:
    """A re-iterable of (inputs (B, F) float32, targets (B,) int64), made once."""

    def __init__(self, num_batches: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        teacher = torch.randn(NUM_FEATURES, NUM_CLASSES, generator=generator)
        self.batches = []
        for _ in range(num_batches):
            inputs = torch.randn(BATCH_SIZE, NUM_FEATURES, generator=generator)
            self.batches.append((inputs, (inputs @ teacher).argmax(dim=1)))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


@dataclass(frozen=True)
class Workload:
    """What is trained: equal for all contestants, fresh weights for each run.

    Attributes:
        is_short: whether a step is less than half as long as the usual one.
    """

    num_epochs: int
    train: Batches
    validation: Batches
    template: nn.Module
    loss_fn: nn.Module = field(default_factory=nn.CrossEntropyLoss)
    is_short: bool = False

    @classmethod
    def create(
        cls, num_epochs: int, steps_per_epoch: int, is_short: bool = False
    ) -> Workload:
        """Build data and initial weights from fixed seeds."""
        torch.manual_seed(0)
        inner = [] if is_short else [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        template = nn.Sequential(
            nn.Linear(NUM_FEATURES, WIDTH),
            nn.ReLU(),
            *inner,
            nn.Linear(WIDTH, NUM_CLASSES),
        )
        validation = Batches(max(1, steps_per_epoch // 10), seed=2)
        train = Batches(steps_per_epoch, seed=1)
        return cls(num_epochs, train, validation, template, is_short=is_short)

    @property
    def num_steps(self) -> int:
        """Updates in one run."""
        return self.num_epochs * len(self.train)

    def new_model(self) -> nn.Module:
        """Return a copy with the initial weights."""
        return copy.deepcopy(self.template)

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer that all contestants use."""
        if self.is_short:
            return torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
        return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)

    def new_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the full contests; it steps once an epoch."""
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=LR_GAMMA)


#: Built outside the clock from a workload and a scratch folder, a contestant gives the
#: model and the call that is timed.
Contestant = Callable[[Workload, Path], tuple[nn.Module, Callable[[], object]]]


def bare(work: Workload, folder: Path) -> tuple[nn.Module, Callable[[], object]]:
    """Return a bare loop that trains and keeps the mean loss of each epoch."""
    model = work.new_model()
    optimizer = work.new_optimizer(model)
    history: list[float] = []

    def train() -> None:
        for _ in range(work.num_epochs):
            model.train()
            history.append(train_block(work, model, optimizer, work.train))

    return model, train


def guarded(work: Workload, folder: Path) -> tuple[nn.Module, Callable[[], object]]:
    """Return the bare loop that looks, by hand, for what is not finite at each step."""
    model = work.new_model()
    optimizer, loss_fn = work.new_optimizer(model), work.loss_fn
    parameters = list(model.parameters())

    def train() -> None:
        for _ in range(work.num_epochs):
            model.train()
            total = 0.0
            for inputs, targets in work.train:
                loss = loss_fn(model(inputs), targets)
                value = loss.item()
                loss.backward()
                gradients = [p.grad for p in parameters if p.grad is not None]
                if not math.isfinite(value) or not all(
                    torch.isfinite(gradient).all() for gradient in gradients
                ):
                    raise ArithmeticError("the loss or a gradient is not finite")
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                total += value

    return model, train


def train_one_epoch(
    work: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    after_step: Callable[[], object],
) -> float:
    """Update on every training batch, with a call after each; return the mean loss."""
    model.train()
    loss_fn = work.loss_fn
    total = torch.zeros(())
    for inputs, targets in work.train:
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        after_step()
    return float(total) / len(work.train)


def train_block(
    work: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Any,
) -> float:
    """Update on some batches and nothing else; return the mean loss."""
    loss_fn = work.loss_fn
    total = torch.zeros(())
    for inputs, targets in batches:
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
    return float(total) / len(batches)


def bare_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable[[], object]]:
    """Return a loop that by hand does what the six plugins do, as plainly as can be."""
    model = work.new_model()
    optimizer = work.new_optimizer(model)
    scheduler = work.new_scheduler(optimizer)

    def train() -> None:
        best, misses = float("inf"), 0
        with open(folder / "log.csv", "w", newline="") as file:
            for epoch in range(1, work.num_epochs + 1):
                train_loss = _epoch_with_progress(work, model, optimizer, epoch)
                row = {"epoch": epoch, "train_loss": train_loss}
                row |= validate(work, model)
                row["lr"] = optimizer.param_groups[0]["lr"]
                scheduler.step()
                improved = row["val_loss"] < best
                best, misses = (row["val_loss"], 0) if improved else (best, misses + 1)
                _write_row(file, row)
                if improved:
                    state = full_state(model, optimizer, scheduler, row)
                    write_durably(folder / "best.pt", state)
                if misses >= PATIENCE:
                    break

    return model, train


def _epoch_with_progress(
    work: Workload, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> float:
    """Train one epoch under a tqdm bar."""
    from tqdm import tqdm

    with tqdm(total=len(work.train), desc=f"epoch {epoch}") as bar:
        return train_one_epoch(work, model, optimizer, bar.update)


def validate(work: Workload, model: nn.Module) -> dict[str, float]:
    """Return mean loss and accuracy over the validation batches."""
    model.eval()
    loss, correct, count = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
    with torch.inference_mode():
        for inputs, targets in work.validation:
            logits = model(inputs)
            loss += work.loss_fn(logits, targets) * len(targets)
            correct += (logits.argmax(dim=1) == targets).sum()
            count += len(targets)
    model.train()
    return {"val_loss": float(loss) / count, "accuracy": float(correct) / count}


def _write_row(file: TextIO, row: dict[str, Any]) -> None:
    writer = csv.DictWriter(file, fieldnames=list(row))
    if file.tell() == 0:
        writer.writeheader()
    writer.writerow(row)
    file.flush()


def full_state(
    model: nn.Module, optimizer: Any, scheduler: Any, row: dict[str, Any]
) -> dict[str, Any]:
    """Return what a resumable checkpoint holds."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "metrics": row,
        "python": sys.version,
    }


def write_durably(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint that a power cut cannot leave half done."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
