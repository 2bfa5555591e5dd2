"""Two plugins that keep checkpoints, each in a folder of its own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus_checkpointing import ModelCheckpointCallback
from training import Trainer


def trainer(folder: Path, num_epochs: int) -> Trainer:
    """Return one with two keepers, whose model gets worse by the epoch."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    kept = {"monitor": "train_loss", "save_last": False}
    return Trainer(
        model,
        [(x, x)] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, maximize=True),
        loss_fn=nn.functional.mse_loss,
        num_epochs=num_epochs,
        plugins=[
            ("best", ModelCheckpointCallback(save_dir=folder / "best", **kept)),
            (
                "latest",
                ModelCheckpointCallback(save_dir=folder / "latest", monitor=None),
            ),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


def test_auto_goes_on_from_the_file_that_has_come_furthest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, num_epochs=3).train()
    assert [file.name[:14] for file in (tmp_path / "best").glob("*.pt")] == [
        "checkpoint-001"
    ]
    again = trainer(tmp_path, num_epochs=4)
    again.train(resume="auto")
    assert Path(str(again.resumed_from)).parent.name == "latest"
    assert len(again.history) == 4
