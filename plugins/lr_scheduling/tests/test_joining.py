"""A parameter group that joins a run has the rate of the schedule at once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, Trainer

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear"},
    "a warmup": {"type": "constant", "warmup": 11},
    "each epoch": {"type": "step", "interval": "epoch", "step_size": 1},
}
HOOKS = (
    *("on_setup", "on_train_begin", "on_epoch_begin", "on_batch_begin", "on_batch_end"),
    *("on_before_step", "on_step_end", "on_metrics", "on_epoch_end"),
)


class Joins(Callback):
    """Lets the first layer join in one hook, and may set its rate then, or save."""

    def __init__(
        self,
        hook: str,
        save: Path | None = None,
        then: float | None = None,
        at: int = 4,
        **options: Any,
    ) -> None:
        self.hook, self.save, self.then, self.options = hook, save, then, options
        early = {"on_setup": 0, "on_train_begin": 0, "on_epoch_begin": 3}
        self.at = early.get(hook, at)

    def join(self, hook: str, trainer: Trainer) -> None:
        groups = trainer.optimizer.param_groups
        if hook != self.hook or len(groups) > 1 or trainer.step < self.at:
            return
        body = list(trainer.model[0].parameters())
        trainer.optimizer.add_param_group({"params": body, **self.options})
        if self.then is not None:
            groups[-1]["lr"] = self.then

    def on_setup(self, trainer: Trainer) -> None:
        self.join("on_setup", trainer)

    def on_train_begin(self, trainer: Trainer) -> None:
        self.join("on_train_begin", trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self.join("on_epoch_begin", trainer)

    def on_batch_begin(self, trainer: Trainer) -> None:
        self.join("on_batch_begin", trainer)

    def on_batch_end(self, trainer: Trainer) -> None:
        self.join("on_batch_end", trainer)

    def on_before_step(self, trainer: Trainer) -> None:
        self.join("on_before_step", trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        self.join("on_step_end", trainer)
        if self.save is not None and trainer.step in (5, 6):
            trainer.request_checkpoint("asked")

    def on_metrics(self, trainer: Trainer) -> None:
        self.join("on_metrics", trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.join("on_epoch_end", trainer)

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self.save is not None:
            trainer.save_checkpoint(self.save / f"{trainer.step}.pt")


def trainer_of(*callbacks: Any, lr: Any = 0.1) -> Trainer:
    """Return a trainer of 4 epochs of 3 updates that notes the rates of each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=lr)
    used: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda own, *_: used.append([float(group["lr"]) for group in own.param_groups])
    )
    trainer = Trainer(
        model,
        [(torch.ones(2, 4), torch.zeros(2, 1))] * 3,
        optimizer=optimizer,
        loss_fn=nn.functional.mse_loss,
        num_epochs=4,
        seed=0,
        device="cpu",
        callbacks=list(callbacks),
    )
    trainer.optimizer.used = used
    return trainer


def used(trainer: Trainer) -> list[list[float]]:
    trainer.train()
    return trainer.optimizer.used


def assert_alike(rates: list[list[float]]) -> None:
    both = [each for each in rates if len(each) == 2]
    assert both
    assert all(head == body for head, body in both), both


@pytest.mark.parametrize("relation", ["before", "after"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_group_that_joins_has_the_rate_of_the_schedule_from_its_first_update(
    options: dict[str, Any], hook: str, relation: str
) -> None:
    joins = Joins(hook, lr=0.1)
    setattr(joins, relation, ("lr_scheduling",))
    rates = used(trainer_of(joins, LearningRateSchedulerCallback(**options)))
    assert_alike(rates)
    alone = used(trainer_of(LearningRateSchedulerCallback(**options)))
    assert [each[:1] for each in rates] == alone


@pytest.mark.parametrize("given", [{}, {"lr": 0.02, "initial_lr": 0.1}])
def test_its_full_rate_may_be_the_optimizer_s_or_said(given: dict[str, float]) -> None:
    plugins = (
        Joins("on_step_end", **given),
        LearningRateSchedulerCallback(type="linear"),
    )
    assert_alike(used(trainer_of(*plugins)))


def test_one_that_shares_the_tensor_of_another_one_s_rate_leaves_that_alone() -> None:
    schedule = LearningRateSchedulerCallback(type="linear")
    rates = used(trainer_of(Joins("on_step_end"), schedule, lr=torch.tensor(0.1)))
    assert_alike(rates)
    alone = trainer_of(
        LearningRateSchedulerCallback(type="linear"), lr=torch.tensor(0.1)
    )
    assert [each[:1] for each in rates] == used(alone)


@pytest.mark.parametrize("hook", ["on_setup", "on_epoch_begin"])
def test_a_rate_that_is_set_after_it_has_joined_is_warned_of(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = LearningRateSchedulerCallback(type="constant")
    joins = Joins(hook, then=0.01)
    joins.after = ("lr_scheduling",)
    rates = used(trainer_of(schedule, joins))
    assert rates[4:] == [[0.1, 0.1]] * 8
    (told,) = [each for each in caplog.messages if "add_param_group" in each]
    assert "1 was set to 0.01, but the schedule had set 0.1 and sets it anew" in told


def test_a_plateau_leaves_a_group_that_joins_at_its_own_rate_until_it_drops() -> None:
    schedule = LearningRateSchedulerCallback(
        type="plateau", monitor="train_loss", mode="max", patience=0, factor=0.5
    )
    rates = used(trainer_of(Joins("on_step_end", at=7, lr=0.1), schedule))
    assert rates[6:] == [[0.05], *[[0.05, 0.1]] * 2, *[[0.025, 0.05]] * 3]


@pytest.mark.parametrize("step", [5, 6], ids=["inside an epoch", "between two"])
@pytest.mark.parametrize("before", [None, {"type": "cosine"}])
def test_one_that_joins_again_follows_the_schedule_that_begins_on_resuming(
    before: dict[str, Any] | None, step: int, tmp_path: Path
) -> None:
    plugins: list[Callback] = [Joins("on_step_end", tmp_path, lr=0.1)]
    if before is not None:
        plugins.append(LearningRateSchedulerCallback(**before))
    trainer_of(*plugins).train()
    schedule = LearningRateSchedulerCallback(
        type="constant", interval="epoch", warmup=2, on_schedule_change="new"
    )
    resumed = trainer_of(schedule)
    resumed.load_checkpoint(tmp_path / f"{step}.pt")
    rates = used(resumed)
    assert_alike(rates)
    assert len(rates) == 12 - step


@pytest.mark.parametrize("fails", [False, True])
def test_the_optimizer_is_as_it_was_when_the_run_is_over(fails: bool) -> None:
    class Fails(Callback):
        def on_step_end(self) -> None:
            if fails:
                raise RuntimeError("as asked")

    schedule = LearningRateSchedulerCallback(type="linear")
    trainer = trainer_of(schedule, Fails())
    with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
        trainer.train()
    body = list(trainer.model[0].parameters())
    trainer.optimizer.add_param_group({"params": body, "lr": 0.2})
    assert "add_param_group" not in vars(trainer.optimizer)
    assert trainer.optimizer.param_groups[1]["lr"] == 0.2
