"""A rate that another plugin sets during a run, beside a schedule."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from trainbus_lr_scheduling.drivers import ClosedForm
from trainbus_lr_scheduling.schedules import Schedule
from training import Callback, ConfigError, Trainer

from .fakes import small_trainer


class Halves(Callback):
    """Halves an option of the groups in one hook, and notes the rates of each step."""

    mutates = ("optimizer",)
    alters_training = True
    after: tuple[str, ...] = ("lr_scheduling",)

    def __init__(self, hook: str, *options: str) -> None:
        self._hook, self._options = hook, options
        self.seen: list[float] = []

    def _halve(self, hook: str, trainer: Trainer) -> None:
        if hook == self._hook:
            for group in trainer.optimizer.param_groups:
                known = [name for name in self._options if name in group]
                group |= {name: group[name] / 2 for name in known}

    def on_setup(self, trainer: Trainer) -> None:
        self._halve("on_setup", trainer)

    def on_train_begin(self, trainer: Trainer) -> None:
        self._halve("on_train_begin", trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            self._halve("on_epoch_begin", trainer)

    def on_batch_begin(self, trainer: Trainer) -> None:
        self.seen.append(trainer.optimizer.param_groups[0]["lr"])


class HalvesFirst(Halves):
    """Hears each event before the schedule does."""

    before = ("lr_scheduling",)
    after = ()


def trainer_of(
    halves: Callback, interval: Any = "step", lr: Any = 0.1, **options: Any
) -> Trainer:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    scheduler = None if "type" in options else ExponentialLR(optimizer, 1.0)
    schedule = LearningRateSchedulerCallback(scheduler, interval=interval, **options)
    return small_trainer(model, optimizer, schedule, halves, num_epochs=4)


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


@TYPES
@pytest.mark.parametrize("hook", ["on_setup", "on_train_begin"])
@pytest.mark.parametrize("kind", [Halves, HalvesFirst])
def test_a_full_rate_that_is_set_before_the_first_step_is_followed_and_resumed(
    kind: Any, hook: str, options: Any, tmp_path: Path, caplog: Any
) -> None:
    trainer_of(expected := Halves("never"), lr=0.05, **options).train()
    first = trainer_of(straight := kind(hook, "lr", "initial_lr"), **options)
    first.train()
    assert straight.seen == expected.seen
    stopped = trainer_of(kind(hook, "lr", "initial_lr"), **options)
    stopped.bus.register_all([(None, StopsAt(5))])
    stopped.train()
    path = stopped.save_checkpoint(tmp_path / "a.pt")
    # One that halves the rate on setting up halves the configured one, as before.
    again = kind(hook if hook == "on_setup" else "never", "lr", "initial_lr")
    resumed = trainer_of(again, **options)
    resumed.load_checkpoint(path)
    resumed.train()
    assert again.seen == straight.seen[5:]
    assert "initial_lr, " not in caplog.text


class Loads(Callback):
    """Loads a state of the optimizer back, as it was given or found on setting up."""

    mutates = ("optimizer",)
    alters_training = True
    after: tuple[str, ...] = ("lr_scheduling",)

    def __init__(self, hook: str, state: Any = None) -> None:
        self._hook, self._state = hook, state
        self.seen: list[float] = []

    def on_setup(self, trainer: Trainer) -> None:
        self._state = self._state or deepcopy(trainer.optimizer.state_dict())
        if self._hook == "on_setup":
            trainer.optimizer.load_state_dict(self._state)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if self._hook == "on_epoch_begin" and trainer.epoch == 1:
            trainer.optimizer.load_state_dict(self._state)

    def on_batch_begin(self, trainer: Trainer) -> None:
        self.seen.append(trainer.optimizer.param_groups[0]["lr"])


class LoadsFirst(Loads):
    """Finds a state in which no schedule has noted a full rate."""

    before = ("lr_scheduling",)
    after = ()


@TYPES
def test_a_state_from_before_the_schedule_is_loaded_back_and_the_run_goes_on(
    options: Any,
) -> None:
    trainer_of(quiet := Halves("never"), **options).train()
    trainer_of(loads := LoadsFirst("on_epoch_begin"), **options).train()
    assert loads.seen[3:] == quiet.seen[3:]


@pytest.mark.parametrize("has_full", [False, True])
def test_a_state_that_is_loaded_before_the_first_step_brings_no_rate(
    has_full: bool,
) -> None:
    other = trainer_of(Halves("never"), lr=0.3, type="constant")
    if has_full:
        other.train()
    loads = Loads("on_setup", other.optimizer.state_dict())
    trainer_of(loads, type="constant").train()
    assert loads.seen == [0.1] * 8


class Appends(Callback):
    """Puts a group among the others by itself, with no full rate."""

    mutates = ("optimizer",)
    alters_training = True

    def on_epoch_begin(self, trainer: Trainer) -> None:
        groups = trainer.optimizer.param_groups
        if trainer.epoch == 1:
            group = groups[0] | {"params": [nn.Parameter(torch.ones(1))], "lr": 0.2}
            del group["initial_lr"]
            groups.append(group)


@TYPES
def test_a_group_that_is_put_among_the_others_follows_from_its_own_rate(
    options: Any,
) -> None:
    trainer = trainer_of(Appends(), **options)
    trainer.train()
    first, second = (group["lr"] for group in trainer.optimizer.param_groups)
    assert second == pytest.approx(2 * first)


def test_a_rate_that_is_a_tensor_is_not_looked_at() -> None:
    """Each advance would wait for its device; this one has no value to look at."""
    rate = torch.empty((), device="meta")
    group = {"params": [nn.Parameter(torch.ones(1))], "lr": rate, "initial_lr": 0.1}
    optimizer = torch.optim.SGD([group])
    driver = ClosedForm(optimizer, Schedule(type="cosine", total=4))
    driver.start()
    driver.advance()
    assert optimizer.param_groups[0]["lr"] is rate


def test_a_rate_that_a_tensor_rounds_is_not_said_to_be_set(caplog: Any) -> None:
    rate = torch.tensor(0.1, dtype=torch.bfloat16)
    trainer_of(Halves("never"), lr=rate, type="cosine").train()
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


def with_scheduler(scheduler: str, *callbacks: Callback) -> Trainer:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    build: dict[str, Any] = {
        "exponential": lambda: ExponentialLR(optimizer, 1.0),
        "lambda": lambda: LambdaLR(optimizer, lambda epoch: 1.0),
        "plateau": lambda: ReduceLROnPlateau(optimizer),
    }
    schedule = (
        LearningRateSchedulerCallback(type="plateau", monitor="train_loss")
        if scheduler == "type"
        else LearningRateSchedulerCallback(build[scheduler](), monitor="train_loss")
    )
    return small_trainer(model, optimizer, schedule, *callbacks, num_epochs=4)


@pytest.mark.parametrize("scheduler", ["exponential", "lambda", "plateau", "type"])
@pytest.mark.parametrize(
    ("kind", "hook"), [(HalvesFirst, "on_train_begin"), (Halves, "on_setup")]
)
def test_a_rate_that_is_set_before_a_scheduler_object_begins_is_refused(
    kind: Any, hook: str, scheduler: str
) -> None:
    trainer = with_scheduler(scheduler, kind(hook, "lr"))
    way = "in on_setup; set it there" if scheduler == "type" else "build the .* anew"
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(ConfigError, match=rf"group 0 was set to 0\.05, .*{way}"):
            trainer.train()
        assert trainer.step == 0
        trainer.optimizer.param_groups[0]["lr"] = 0.1


@pytest.mark.parametrize("scheduler", ["exponential", "lambda", "plateau", "type"])
def test_a_state_that_is_loaded_before_a_scheduler_object_begins_brings_no_rate(
    scheduler: str,
) -> None:
    other = trainer_of(Halves("never"), lr=0.3, type="constant")
    loads = Loads("on_setup", other.optimizer.state_dict())
    with_scheduler(scheduler, loads).train()
    assert loads.seen == [0.1] * 8
