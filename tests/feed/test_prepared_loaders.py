"""A loader that another library has made of a person's own."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from toy import make_trainer


def test_a_loader_that_accelerate_prepared_is_read_though_it_has_no_state() -> None:
    accelerate = pytest.importorskip("accelerate")
    rows = TensorDataset(torch.randn(12, 4), torch.randn(12, 1))
    prepared = accelerate.Accelerator(cpu=True).prepare(DataLoader(rows, batch_size=4))
    trainer = make_trainer(None, prepared, num_epochs=2)
    trainer.train()
    assert trainer.step == 6
