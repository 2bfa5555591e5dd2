"""A small real run that every test of this folder can start."""

import resource
import signal

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from training import Callback, Trainer

DATA = [(torch.ones(2, 3) * i, torch.tensor([0, 1])) for i in range(4)]


class Fixed(Callback):
    """Evaluates to given values, one dictionary an epoch."""

    def __init__(self, *rows):
        self.rows = rows

    def metric_names(self):
        return [name for row in self.rows for name in row]

    def evaluate(self, trainer, reason):
        if reason != "epoch_end" or trainer.epoch > len(self.rows):
            return None
        return self.rows[trainer.epoch - 1]


class SaveAt(Callback):
    """Writes a checkpoint at a step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer, reason):
        if reason == "test":
            trainer.save_checkpoint(self.path)


@pytest.fixture
def make_trainer(tmp_path):
    def make(
        *callbacks,
        num_epochs=2,
        loader=DATA,
        groups=1,
        loss_fn=cross_entropy,
        **options,
    ):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        parameters = [model.parameters()]
        if groups == 2:
            parameters = [{"params": model.weight}, {"params": model.bias, "lr": 0.05}]
        optimizer = SGD(parameters if groups == 2 else model.parameters(), lr=0.1)
        return Trainer(
            model,
            loader,
            optimizer=optimizer,
            loss_fn=loss_fn,
            callbacks=list(callbacks),
            num_epochs=num_epochs,
            device="cpu",
            seed=0,
            save_dir=tmp_path / "run",
            **options,
        )

    make.fixed, make.save_at, make.data = Fixed, SaveAt, DATA
    return make


@pytest.fixture
def room():
    """Set how many bytes a file may have, as where a disk is full; None: any number."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def leave(size):
        most = limits[1]
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (most if size is None else size, most)
        )

    yield leave
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)
