"""A later look makes one cut, in train mode; one that does not fit decides nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from training import ConfigError, Trainer
from training.weighing.cut import ALONE, rows_of_parts
from training.weighing.fit import confirmed

WEIGHTS = torch.tensor([1.0, 5.0])


def by_class(outputs: Tensor, labels: Tensor) -> Tensor:
    """Another of three classes."""
    return F.cross_entropy(outputs, labels, torch.tensor([1.0, 2.0, 3.0]))


def weighted(outputs: Tensor, labels: Tensor) -> Tensor:
    """A mean by class weights, which nobody says."""
    return F.cross_entropy(outputs, labels, WEIGHTS)


def run_of(
    model: nn.Module, labels: list[Tensor], loss_fn: Any = weighted, a_window: int = 2
) -> Trainer:
    """Return a run over a batch for each of ``labels``."""
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(len(y), 4, generator=generator), y) for y in labels]
    return Trainer(
        model,
        batches,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=loss_fn,
        gradient_accumulation_steps=a_window,
        device="cpu",
    )


def marked(num_rows: int, *rows: int) -> Tensor:
    """Return labels of class 0, but for ``rows``."""
    labels = torch.zeros(num_rows, dtype=torch.long)
    labels[list(rows)] = 1
    return labels


@pytest.mark.parametrize("num_rows", range(2, 70))
def test_w4_one_cut_tells_apart_rows_of_two_kinds_however_many_of_each(
    num_rows: int,
) -> None:
    """The first part has never as much of a kind as all rows have."""
    in_part = len(rows_of_parts(range(num_rows), ALONE, num_rows)[0])
    assert all(of_a_kind * in_part % num_rows for of_a_kind in range(1, num_rows))


@pytest.mark.parametrize("num_rows", range(2, 70))
def test_it_makes_four_parts_where_there_are_as_many_rows(num_rows: int) -> None:
    parts = rows_of_parts(range(num_rows), ALONE, num_rows)
    assert len(parts) == min(4, num_rows)
    assert all(parts)
    assert sorted(row for part in parts for row in part) == list(range(num_rows))


@pytest.mark.parametrize("labels", [(1, 0, 2, 1), (1, 1, 0, 2), (0, 2, 1, 1)])
def test_w4_a_unit_is_belied_by_rows_of_three_kinds_in_whatever_order(
    labels: tuple[int, ...],
) -> None:
    """Where a row weighs as much as the mean, a cut into two may tell nothing."""
    torch.manual_seed(1)
    batches = [torch.ones(4, dtype=torch.long)] * 2 + [torch.tensor(labels)] * 4
    trainer = run_of(nn.Linear(4, 3), batches, by_class)
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trainer.train()
    assert trainer.step == 1


@pytest.mark.parametrize("first", [(1, 1, 2), (1, 2, 2), (2, 2, 2)])
def test_w4_a_unit_of_fewer_cuts_is_belied_as_any(first: tuple[int, ...]) -> None:
    """Batches of one row make none, those of two rows one each."""
    torch.manual_seed(1)
    batches = [torch.ones(rows, dtype=torch.long) for rows in first]
    batches += [torch.tensor([0, 2, 2, 0])] * 3
    trainer = run_of(nn.Linear(4, 3), batches, by_class, a_window=3)
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trainer.train()
    assert trainer.step == 1


RIGHT = (0.375, 0.125, 0.25, 0.25)


@pytest.mark.parametrize(
    ("shares", "is_right"),
    [
        pytest.param(RIGHT, True, id="those"),
        pytest.param((0.372, 0.125, 0.25, 0.253), False, id="others by 0.003"),
        pytest.param((0.5, 0.0, 0.25, 0.25), False, id="of two parts together alike"),
        pytest.param((1.0, 1.0, 1.0, 1.0), False, id="a sum"),
    ],
)
def test_shares_of_four_parts_are_told_but_for_rounding(
    shares: tuple[float, ...], is_right: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(4, 50, generator=generator)
    whole = (torch.tensor(RIGHT) @ parts).double()
    told = confirmed(["samples"], {"samples": shares}, whole, [*parts.double()])
    assert bool(told) is is_right


@pytest.mark.parametrize("kind", ["parallel", "nothing", "a rest"])
def test_what_tells_shares_too_vaguely_confirms_nothing(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    if kind == "parallel":
        parts[1] = 2 * parts[0]
    elif kind == "nothing":
        parts[1] = 0.0
    whole = torch.tensor(RIGHT, dtype=torch.float64) @ parts
    if kind == "a rest":
        whole += 0.01 * torch.randn(50, generator=generator, dtype=torch.float64)
    assert not confirmed(["samples"], {"samples": RIGHT}, whole, [*parts])


class Drops(nn.Linear):
    """Draws in train mode, of which no module tells."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, self.training))


class Recomputes(nn.Linear):
    """Hides its gradient from ``autograd.grad`` in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        x = x.clone().requires_grad_()
        found: Tensor = checkpoint(super().forward, x, use_reentrant=True)
        return found


class RefusesARow(nn.Linear):
    """Raises in train mode of what a part of four rows is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            raise ValueError("more than one value is expected in training")
        return super().forward(x)


@pytest.mark.parametrize("num_rows", [4, 8])
@pytest.mark.parametrize("kind", [nn.Linear, Drops, Recomputes, RefusesARow])
def test_w4_a_unit_is_belied_whatever_train_mode_tells(
    kind: type[nn.Linear], num_rows: int
) -> None:
    torch.manual_seed(1)
    batches = [marked(num_rows)] * 2 + [marked(num_rows, 1, 2)] * 4
    trainer = run_of(kind(4, 2), batches)
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trainer.train()
    assert trainer.step == 1


class NormsByItself(nn.Linear):
    """Its rows depend on one another in train mode, as in a BatchNorm."""

    mean: Tensor
    var: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("var", torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return F.batch_norm(outputs, self.mean, self.var, training=self.training)


def test_what_rows_do_to_one_another_in_train_mode_alone_belies_no_unit() -> None:
    def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)  # not itself, which is known

    torch.manual_seed(1)
    labels = [marked(8, *range(1 + n % 5)) for n in range(16)]
    trainer = run_of(NormsByItself(4, 2), labels, cross_entropy)
    trainer.train()
    assert trainer.step == 8
