"""What a loss is a mean over is measured in full precision, if need be by few rows."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn
from toy import make_trainer


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
