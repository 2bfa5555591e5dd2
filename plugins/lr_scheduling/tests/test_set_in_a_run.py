"""A rate that another plugin sets during a run, beside a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, Trainer


class Halves(Callback):
    """Halves an option of the groups in one hook, and notes the rates of each step."""

    mutates = ("optimizer",)
    alters_training = True
    after = ("lr_scheduling",)

    def __init__(self, hook: str, *options: str) -> None:
        self._hook, self._options = hook, options
        self.seen: list[float] = []

    def _halve(self, hook: str, trainer: Trainer) -> None:
        if hook == self._hook:
            for group in trainer.optimizer.param_groups:
                group |= {name: group[name] / 2 for name in self._options}

    def on_setup(self, trainer: Trainer) -> None:
        self._halve("on_setup", trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            self._halve("on_epoch_begin", trainer)

    def on_batch_begin(self, trainer: Trainer) -> None:
        self.seen.append(trainer.optimizer.param_groups[0]["lr"])


def trainer_of(halves: Halves, interval: Any = "step", **options: Any) -> Trainer:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = None if "type" in options else ExponentialLR(optimizer, 1.0)
    return Trainer(
        model,
        [(torch.ones(1, 1),)] * 2,
        optimizer=optimizer,
        num_epochs=4,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean(),
        callbacks=[
            LearningRateSchedulerCallback(scheduler, interval=interval, **options),
            halves,
        ],
        seed=0,
    )


TYPES: Any = pytest.mark.parametrize(
    "options",
    [{"type": "constant"}, {"type": "cosine"}, {"type": "step", "step_size": 5}],
)


@TYPES
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("hook", ["on_setup", "on_epoch_begin"])
def test_a_rate_that_a_plugin_sets_beside_a_type_is_undone_and_warned_of_once(
    options: Any, interval: str, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_of(quiet := Halves("never"), interval, **options).train()
    assert "initial_lr" not in caplog.text
    trainer_of(halves := Halves(hook, "lr"), interval, **options).train()
    (told,) = [each for each in caplog.messages if "initial_lr" in each]
    first = quiet.seen[0 if hook == "on_setup" else 2]
    assert f"set to {first / 2:g}, but the schedule had set {first:g} " in told
    assert halves.seen[4:] == quiet.seen[4:]


@TYPES
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_full_rate_that_a_plugin_sets_is_followed_and_resumed(
    options: Any, interval: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_of(quiet := Halves("never"), interval, **options).train()
    straight = Halves("on_epoch_begin", "lr", "initial_lr")
    trainer_of(straight, interval, **options).train()
    assert straight.seen == [*quiet.seen[:2], *(rate / 2 for rate in quiet.seen[2:])]
    first = trainer_of(
        Halves("on_epoch_begin", "lr", "initial_lr"), interval, **options
    )
    first.bus.register_all([(None, StopsAt(5))])
    first.train()
    path = first.save_checkpoint(tmp_path / "a.pt")
    resumed = trainer_of(halves := Halves("never"), interval, **options)
    resumed.load_checkpoint(path)
    resumed.train()
    assert halves.seen == straight.seen[5:]
    assert "initial_lr" not in caplog.text


class StopsAt(Callback):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self._step:
            trainer.request_stop("asked")


def test_beside_an_object_that_multiplies_the_rate_it_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer_of(halves := Halves("on_epoch_begin", "lr")).train()
    assert halves.seen == [0.1] * 2 + [0.05] * 6
    assert "initial_lr" not in caplog.text
