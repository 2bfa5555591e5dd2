"""A trainer and optimizer as far as a schedule looks at them, and a small true one."""

from types import SimpleNamespace

import torch
from torch.optim import SGD

from training import Trainer


def make_optimizer(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in rates]
    return SGD(groups or [torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def small_trainer(model, optimizer, *callbacks, num_epochs=2):
    """Return a trainer of epochs of 2 steps, of a model that maps (B, 1) to (B, 1)."""
    return Trainer(
        model,
        [(torch.ones(1, 1),)] * 2,
        optimizer=optimizer,
        num_epochs=num_epochs,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean(),
        callbacks=list(callbacks),
        seed=0,
    )


def fake_trainer(optimizer, num_epochs=2, steps_per_epoch=5, max_steps=None):
    total = None if steps_per_epoch is None else num_epochs * steps_per_epoch
    return SimpleNamespace(
        plugins={},
        bus=SimpleNamespace(name_of=lambda plugin: plugin.name),
        optimizer=optimizer,
        group_places=[],
        resumed_from=None,
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
        max_steps=max_steps,
        gradient_accumulation_steps=1,
        total_steps=max_steps or total,
        epoch=0,
        step=0,
        update=0,
        batches_seen=0,
        is_extra_evaluation=False,
        require_metric=lambda name, owner, mode: None,
    )


def begin(callback, trainer, resumed=False):
    callback.on_setup(trainer)
    callback.on_train_begin(trainer, resumed)
    return callback


def run(callback, trainer, applied):
    """Fire the events of windows whose updates were ``applied``; return rates used."""
    used = []
    for is_applied in applied:
        used.append([group["lr"] for group in trainer.optimizer.param_groups])
        trainer.optimizer.step()
        trainer.step += 1
        trainer.update += is_applied
        callback.on_step_end(is_applied)
    return used
