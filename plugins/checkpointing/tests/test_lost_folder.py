"""A folder that goes away under a run is named as what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from training import Callback, CheckpointError, Trainer


class Loses(Callback):
    """Deletes a folder at the second step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 2:
            shutil.rmtree(self.folder)


def test_a_folder_that_is_gone_is_said_to_be_and_what_to_do(tmp_path: Path) -> None:
    model, folder = nn.Linear(1, 1), tmp_path / "checkpoints"
    options = {"monitor": None, "every_n_steps": 1}
    trainer = Trainer(
        model,
        [torch.ones(1, 1)] * 4,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch).square().mean(),
        callbacks=[Loses(folder)],
        plugins=[{"checkpointing": options}],
        num_epochs=1,
        save_dir=tmp_path,
        device="cpu",
    )
    with pytest.raises(CheckpointError, match=r"is gone .*put it back and resume, or"):
        trainer.train()
