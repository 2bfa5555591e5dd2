"""BatchNorm sees its part of a batch: that is said, and its buffers follow main."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus_distributed import DistributedCallback
from training import ConfigError, Trainer

pytestmark = pytest.mark.distributed


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def trained(engine: str, norm: str) -> dict[str, Any]:
    """Train twice with a layer that normalises; return warnings and buffers."""
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if norm == "batch" else nn.GroupNorm(2, 4)
    model = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 1))
    rows = TensorDataset(torch.randn(8, 4), torch.randn(8, 1))
    heard, logger = Heard(), logging.getLogger("trainbus_distributed.strategy")
    logger.addHandler(heard)
    try:
        trainer = Trainer(
            model,
            DataLoader(rows, batch_size=4),
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            loss_fn=nn.functional.mse_loss,
            loss_per="samples",
            plugins=[{"distributed": {"engine": engine}}],
            device="cpu",
        )
        for _ in range(2):
            trainer.train()
    finally:
        logger.removeHandler(heard)
    model.eval()
    with torch.no_grad():
        answers = model(torch.ones(2, 4)).tolist()
    return {
        "told": [each for each in heard.told if "BatchNorm" in each],
        "buffers": [buffer.tolist() for buffer in model.buffers()],
        "answers": answers,
    }


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_d17_batchnorm_is_told_of_once_and_follows_main(
    two: Ranks, engine: str
) -> None:
    main, other = two.run(trained, engine, "batch")
    (told,) = main["told"]
    assert told.startswith("BatchNorm (1) normalises by the rows of each process's")
    assert told.endswith("and torch may refuse a part of one row")
    assert other["told"] == []
    assert main["buffers"] == other["buffers"]
    assert main["answers"] == other["answers"]


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_d17_other_layers_are_not_told_of(two: Ranks, engine: str) -> None:
    main, other = two.run(trained, engine, "group")
    assert main == other
    assert main["told"] == []


def test_d17_statistics_of_all_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sync_batchnorm is true, which .* not do"):
        DistributedCallback(sync_batchnorm=True)
