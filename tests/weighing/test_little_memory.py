"""What a loss is a mean over is measured in full precision, if need be by few rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy import make_trainer

from training import ConfigError


class Wide(nn.Module):
    """Has room for few rows, but for more in half precision."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.layers, self.most = nn.Linear(4, 1), most
        self.tried: list[int] = []

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        if not torch.is_autocast_enabled("cpu"):
            self.tried.append(len(x))
            if len(x) > self.most:
                raise torch.OutOfMemoryError("no room")
        return {"loss": nn.functional.mse_loss(self.layers(x), y)}


def wide_trainer(most: int) -> Any:
    model = Wide(most)
    torch.manual_seed(0)
    batches = [(torch.randn(16, 4), torch.randn(16, 1)) for _ in range(4)]
    options: Any = {"gradient_accumulation_steps": 2, "precision": "bf16"}
    return make_trainer(model, batches, **options)


def test_a_batch_with_no_room_in_full_precision_is_measured_by_fewer_rows() -> None:
    trainer = wide_trainer(most=4)
    trainer.train()
    told = trainer.state.weigher.settings()
    assert (told["unit"], told["is_settled"]) == ("samples", True)
    tried = trainer.model.tried
    assert max(tried) == 16
    assert min(tried) < 4


def test_where_no_row_has_room_the_run_is_refused_with_that_reason() -> None:
    with pytest.raises(ConfigError, match=r"the model raised OutOfMemoryError: no roo"):
        wide_trainer(most=0).train()
