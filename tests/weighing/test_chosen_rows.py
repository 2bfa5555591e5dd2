"""All rows of a batch are measured in full precision, or as many as have room."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy import make_trainer
from weighing.every_kind import FOUND, KINDS, NONE
from weighing.zoo import Kind, Perceptron

from training import Trainer
from training.errors import ConfigError

ROWS = 40


def large(kind: Kind) -> Kind:
    """Return a kind of forty rows, of which hardly two are alike."""
    g = torch.Generator().manual_seed(0)

    def other(row: Any) -> Any:
        if isinstance(row, dict):  # its loss is none between rows
            return row
        return (row[0] + 0.1 * torch.randn(row[0].shape, generator=g), *row[1:])

    return replace(kind, rows=[other(row) for row in kind.rows * 5])


def measured(kind: Kind) -> Any:
    """Return the weigher of a run in which two batches of forty rows are a window."""
    trainer = kind.trainer((ROWS,), times=2)
    trainer.train()
    return trainer.state.weigher


@pytest.mark.parametrize("name", FOUND)
def test_the_unit_of_a_large_batch_is_that_of_a_small_one(name: str) -> None:
    kind, unit = KINDS[name]
    assert measured(large(kind)).settings()["unit"] == unit


@pytest.mark.parametrize("name", NONE)
def test_a_loss_without_a_unit_has_none_in_a_large_batch(name: str) -> None:
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        measured(large(KINDS[name][0]))


def sorted_rows(sizes: tuple[int, ...] = (ROWS, 24, 17)) -> list[Any]:
    """Return batches whose first 16 rows have labels 0 to 3, and some others 4."""
    g, found = torch.Generator().manual_seed(1), []
    for size in sizes:
        labels = torch.randint(0, 4, (size,), generator=g)
        labels[16::3] = 4
        found.append((torch.randn(size, 6, generator=g), labels))
    return found


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def weighted(outputs: Tensor, labels: Tensor) -> Tensor:
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 20.0])
    return F.cross_entropy(outputs, labels, weight=weight)


def of_all_but_one_class(outputs: Tensor, labels: Tensor) -> Tensor:
    return losses(outputs, labels)[labels != 4].mean()


def of_the_hardest(outputs: Tensor, labels: Tensor) -> Tensor:
    return losses(outputs, labels).topk(min(16, len(labels))).values.mean()


def of_blocks(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.stack(
        [part.mean() for part in losses(outputs, labels).split(16)]
    ).mean()


def of_sixteen_at_least(outputs: Tensor, labels: Tensor) -> Tensor:
    return losses(outputs, labels).sum() / max(16, len(labels))


#: Means of what nobody is told of, over whose unit the first rows say nothing, and
#: losses that depend on how many rows there are.
EXCUSED = [
    *(weighted, of_all_but_one_class),
    *(of_the_hardest, of_blocks, of_sixteen_at_least),
]


@pytest.mark.parametrize("loss_fn", EXCUSED)
def test_a_loss_that_a_few_rows_would_excuse_is_refused(loss_fn: Any) -> None:
    def trainer(batches: list[Any]) -> Trainer:
        model = Perceptron()
        return Trainer(
            model,
            batches,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=loss_fn,
            gradient_accumulation_steps=len(batches),
            device="cpu",
        )

    refused = trainer(sorted_rows())
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        refused.train()
    assert refused.step == 0
    # The control: of sixteen rows alone it is one, or a sum.
    trainer([(x[:16], labels[:16]) for x, labels in sorted_rows()]).train()


class Wide(nn.Module):
    """Has room for the activations of so many rows, and for all in half precision."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.widen, self.narrow, self.most = nn.Linear(4, 16), nn.Linear(16, 1), most
        self.held: list[tuple[weakref.ref[torch.Tensor], int]] = []
        self.tried: list[int] = []

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.widen(x)
        rows = sum(n for hold, n in self.held if hold() is not None) + len(x)
        self.held.append((weakref.ref(hidden), len(x)))
        if not torch.is_autocast_enabled("cpu"):
            self.tried.append(len(x))
            if rows > self.most:
                raise torch.OutOfMemoryError("no room")
        return {"loss": nn.functional.mse_loss(self.narrow(hidden), y)}


def wide_trainer(rows: int, most: float, precision: str = "bf16") -> Any:
    torch.manual_seed(0)
    batches = [(torch.randn(rows, 4), torch.randn(rows, 1)) for _ in range(4)]
    options: Any = {"gradient_accumulation_steps": 2, "precision": precision}
    return make_trainer(Wide(most), batches, **options)


def test_a_batch_with_no_room_in_full_precision_is_measured_by_fewer_rows() -> None:
    # No more than fit: what a pass that failed has taken must be free again.
    trainer = wide_trainer(16, most=8)
    trainer.train()
    told = trainer.state.weigher.settings()
    assert (told["unit"], told["is_settled"]) == ("samples", True)
    assert {16, 8} <= set(trainer.model.tried)


@pytest.mark.parametrize("rows", [2, 16])
def test_where_no_row_has_room_it_is_measured_as_it_is_trained(rows: int) -> None:
    trainer = wide_trainer(rows, most=0)
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == "samples"


def test_where_that_has_no_room_either_training_has_none() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        wide_trainer(16, most=0, precision="fp32").train()
    assert "out of memory at step 0 with batches of 16" in caught.value.__notes__[0]
