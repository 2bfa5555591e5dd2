"""Train with two keepers of checkpoints, and die where one of them writes.

``python dying_keeper.py FOLDER FILE IS_ASYNC`` dies as soon as a file of such a path is
to be synced, after which nothing is closed or tidied up. It is a process of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from faults.operations import Operations
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, Trainer

#: By epoch; the best of the second is not the last.
LOSSES = (4.0, 3.0, 2.0, 1.0)
ACCURACIES = (0.5, 0.9, 0.6, 0.7)
KILLED = 77


class Measures(Callback):
    """Delivers the metrics."""

    def metric_names(self) -> list[str]:
        return ["loss", "accuracy"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        at = trainer.epoch - 1
        return {"loss": LOSSES[at], "accuracy": ACCURACIES[at]}


def build(
    folder: Path,
    *others: tuple[str, Any],
    is_async: bool = False,
    has_second: bool = True,
    **options: Any,
) -> Trainer:
    """Return a run of four epochs of two steps, which draws in each.

    Args:
        folder: of the run.
        others: further plugins, by name.
        is_async: whether the second keeper writes in a thread.
        has_second: whether there is one.
        options: of the second keeper.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 1))
    data = TensorDataset(torch.rand(8, 3), torch.rand(8, 1))
    second = ModelCheckpointCallback(
        folder / "second",
        "accuracy",
        "max",
        async_save=is_async,
        **options,
    )
    return Trainer(
        model,
        DataLoader(data, batch_size=4, shuffle=True),
        optimizer=torch.optim.Adam(model.parameters()),
        loss_fn=nn.functional.mse_loss,
        num_epochs=len(LOSSES),
        plugins=[
            ("measures", Measures()),
            ("first", ModelCheckpointCallback(folder / "first", "loss", save_top_k=-1)),
            *([("second", second)] if has_second else []),
            *others,
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


def die(folder: Path, file: str, is_async: bool) -> None:
    """Go on with the run in ``folder`` up to where ``file`` is written."""

    def act(number: int, name: str, path: str, detail: Any) -> None:
        if name == "fsync" and file in path:
            os._exit(KILLED)

    with Operations(folder, act):
        build(folder, is_async=is_async).train(resume="auto")


if __name__ == "__main__":
    die(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True")
