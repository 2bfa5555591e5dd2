"""Files that leave frozen weights out, where weights lie in parts on processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from training import Trainer

pytestmark = pytest.mark.distributed


def ended(engine: str, folder: str, resume: Any = None) -> tuple[str, list[Any]]:
    """Train until the best weights are put back; return which, and all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    batches = [(torch.randn(4, 4), torch.randn(4, 1)) for _ in range(2)]
    trainer = Trainer(
        model,
        batches,
        optimizer=torch.optim.SGD(model[2].parameters(), 0.1),
        loss_fn=nn.functional.mse_loss,
        loss_per="samples",
        callbacks=[
            # The first epoch, whose loss is the largest, is the best: a file has it.
            EarlyStoppingCallback("train_loss", mode="max", restore_best_weights=True),
            ModelCheckpointCallback(weights="trained", monitor=None, save_top_k=-1),
        ],
        plugins=[{"distributed": {"engine": engine}}],
        num_epochs=3,
        seed=1,
        device="cpu",
        save_dir=folder,
    )
    trainer.train(resume=resume)
    weights = trainer.strategy.full(dict(trainer.model.named_parameters()))
    kept = [w.tolist() for w in weights.values()] if trainer.is_main else []
    return trainer.weights_are, kept


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_best_weights_come_back_from_a_file_without_the_frozen_ones(
    two: Ranks, engine: str, tmp_path: Any
) -> None:
    folder = str(tmp_path)
    (label, weights), (other, _) = two.run(ended, engine, folder)
    assert label == other == "best@2"
    assert two.run(ended, engine, folder, "auto")[0] == (label, weights)
