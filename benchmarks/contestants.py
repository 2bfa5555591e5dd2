"""trainbus on the workload, plain and full.

"Plain" trains and reports the mean loss of each epoch; every bar, log, checkpoint and
check that can be switched off is off. "Full" adds a progress bar, CSV, a checkpoint
of the best epoch, early stopping, a schedule and validation each epoch, with the
library's own parts where it has them. A peer is listed when it can be imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from peers import PEERS
from torch import nn
from workload import PATIENCE, Contestant, Workload, bare, bare_full


def trainbus_plain(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return a ``Trainer`` without plugins."""
    from training import Trainer

    model = work.new_model()
    trainer = Trainer(
        model=model,
        train_dataloader=work.train,
        optimizer=work.new_optimizer(model),
        loss_fn=work.loss_fn,
        num_epochs=work.num_epochs,
        device="cpu",
        save_dir=folder,
    )
    return model, trainer.train


def trainbus_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return a ``Trainer`` with the six plugins."""
    from training import (
        CSVLoggerCallback,
        EarlyStoppingCallback,
        EvaluationCallback,
        LearningRateSchedulerCallback,
        ModelCheckpointCallback,
        ProgressBarCallback,
        Trainer,
    )

    model = work.new_model()
    optimizer = work.new_optimizer(model)
    callbacks = [
        ProgressBarCallback(verbose=1),
        CSVLoggerCallback(filename=str(folder / "log.csv")),
        ModelCheckpointCallback(
            save_dir=str(folder), monitor="val_loss", save_top_k=1, save_last=False
        ),
        EarlyStoppingCallback(
            monitor="val_loss", patience=PATIENCE, restore_best_weights=False
        ),
        LearningRateSchedulerCallback(work.new_scheduler(optimizer)),
        EvaluationCallback(metrics=["loss", "accuracy"]),
    ]
    trainer = Trainer(
        model=model,
        train_dataloader=work.train,
        val_dataloader=work.validation,
        optimizer=optimizer,
        loss_fn=work.loss_fn,
        num_epochs=work.num_epochs,
        device="cpu",
        callbacks=callbacks,
        save_dir=folder,
    )
    return model, trainer.train


#: name -> (module that must be there, plain, full); the bare loop is the measure.
CONTESTANTS: dict[str, tuple[str, Contestant, Contestant]] = {
    "bare loop": ("torch", bare, bare_full),
    "trainbus": ("training", trainbus_plain, trainbus_full),
    **PEERS,
}


def installed(contest: str) -> dict[str, Contestant]:
    """Return who can run here in ``contest`` ("plain" or "full"), by name."""
    return {
        name: plain if contest == "plain" else full
        for name, (module, plain, full) in CONTESTANTS.items()
        if importlib.util.find_spec(module) is not None
    }
