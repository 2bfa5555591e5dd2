"""Learning rates in whole runs: when they move, which is logged, how they end."""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from toy import Regression, groups_of, regression_batches

from trainbus_logging import CSVLoggerCallback, TensorBoardCallback
from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, ConfigError, Trainer

NAN = float("nan")


class UsedRates(torch.optim.SGD):
    """Notes the rate of every group at the moment it is used."""

    used: list[list[float]]

    def step(self, closure: Any = None) -> Any:
        self.used.append([float(group["lr"]) for group in self.param_groups])
        return super().step(closure)


def build(
    *callbacks: Any,
    batches: int = 5,
    accumulation: int = 2,
    scheduler: Any = None,
    **options: Any,
) -> Trainer:
    """Return a trainer over two parameter groups, three windows an epoch."""
    model = Regression()
    optimizer = UsedRates(groups_of(model, 0.1, 0.02))
    optimizer.used = []
    return Trainer(
        model=model,
        train_dataloader=regression_batches(batches),
        optimizer=optimizer,
        scheduler=scheduler and scheduler(optimizer),
        callbacks=list(callbacks),
        gradient_accumulation_steps=accumulation,
        device="cpu",
        **{"num_epochs": 2, **options},
    )


def used(trainer: Trainer, group: int = 0) -> list[float]:
    return [rates[group] for rates in trainer.optimizer.used]  # type: ignore[attr-defined]


class Steps(Callback):
    """Notes the logged rate of every step."""

    def __init__(self) -> None:
        self.logged: list[float] = []

    def on_step_end(self, logs: Any) -> None:
        self.logged.append(logs["lr"])


@pytest.mark.parametrize(
    ("options", "run", "warm"),
    [
        pytest.param({}, {}, 0, id="ragged epochs"),
        pytest.param({"warmup": 2}, {"num_epochs": 3}, 2, id="warmup in updates"),
        pytest.param({"warmup": 0.5}, {}, 3, id="warmup as a fraction"),
        pytest.param({}, {"max_steps": 4}, 0, id="max_steps"),
        pytest.param({}, {"accumulation": 1, "batches": 3}, 0, id="no accumulation"),
    ],
)
def test_a_schedule_per_update_is_over_exactly_when_the_run_is(
    options: dict[str, Any], run: dict[str, Any], warm: int
) -> None:
    """The total is that of the plan, tail windows included."""
    trainer = build(LearningRateSchedulerCallback(type="linear", **options), **run)
    trainer.train()
    assert trainer.update == trainer.total_steps
    left = float(trainer.optimizer.param_groups[0]["lr"])
    falling = [*used(trainer)[warm:], left]
    drops = [a - b for a, b in itertools.pairwise(falling)]
    assert drops == pytest.approx([drops[0]] * len(drops))
    assert falling[0] == pytest.approx(0.1)
    assert left == pytest.approx(0.0)


def test_the_logged_rate_is_the_used_one_for_all_groups(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    steps = Steps()
    trainer = build(
        LearningRateSchedulerCallback(type="cosine", warmup=2),
        TensorBoardCallback(tmp_path / "logs", every_n_steps=1),
        CSVLoggerCallback(tmp_path / "log.csv"),
        steps,
    )
    trainer.train()
    board = reader.EventAccumulator(str(tmp_path / "logs" / trainer.save_dir.name))
    board.Reload()
    for group, tag in ((0, "lr/0"), (1, "lr/1")):
        shown = [event.value for event in board.Scalars(tag)]
        assert shown == pytest.approx(used(trainer, group))
    assert steps.logged == used(trainer)
    assert [row["lr"] for row in trainer.history] == [
        used(trainer)[2],
        used(trainer)[5],
    ]
    assert f",{used(trainer)[2]}," in (tmp_path / "log.csv").read_text()


def test_the_logged_rate_is_the_used_one_where_a_plugin_sets_it_before_the_step() -> (
    None
):
    steps = Steps()

    class Halves(Callback):
        def on_before_step(self, trainer: Trainer) -> None:
            for group in trainer.optimizer.param_groups:
                group["lr"] /= 2

    trainer = build(Halves(), steps)
    trainer.train()
    assert steps.logged == used(trainer)


def test_a_schedule_that_a_hook_of_the_optimizer_steps_moves_what_is_logged() -> None:
    steps = Steps()
    trainer = build(steps)
    schedule = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.5)
    trainer.optimizer.register_step_post_hook(lambda *_: schedule.step())
    trainer.train()
    assert steps.logged[:-1] == used(trainer)[1:]


@pytest.mark.parametrize("is_also_a_callback", [False, True])
def test_a_scheduler_moves_every_group_once_an_epoch_however_it_is_passed(
    is_also_a_callback: bool,
) -> None:
    trainer = build(scheduler=lambda opt: CosineAnnealingLR(opt, T_max=4), num_epochs=4)
    if is_also_a_callback:
        trainer = Trainer(
            model=trainer.model,
            train_dataloader=trainer.train_dataloader,
            optimizer=trainer.optimizer,
            scheduler=trainer.scheduler,
            callbacks=[LearningRateSchedulerCallback(trainer.scheduler)],
            gradient_accumulation_steps=2,
            device="cpu",
            num_epochs=4,
        )
    trainer.train()
    factors = [0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    expected = [factor for factor in factors for _ in range(3)]
    assert used(trainer, 0) == pytest.approx([0.1 * each for each in expected])
    assert used(trainer, 1) == pytest.approx([0.02 * each for each in expected])


class Measures(Callback):
    """Delivers given values of val_loss; None: nothing."""

    def __init__(self, *values: float | None) -> None:
        self.values = list(values)

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self) -> dict[str, float] | None:
        value = self.values.pop(0)
        return None if value is None else {"val_loss": value}


@pytest.mark.parametrize(
    ("values", "drops"),
    [
        pytest.param([3.0, 2.0, 1.0, 0.5], 0, id="gains"),
        pytest.param([3.0, 3.0, 3.0, 3.0], 1, id="two misses after a best"),
        pytest.param([3.0, None, None, 2.0], 0, id="a stale value is no check"),
        pytest.param([3.0, NAN, NAN, 2.0], 1, id="NaN is a miss"),
        pytest.param([NAN, 3.0, 2.0, 1.0], 0, id="NaN first is not the best"),
    ],
)
@pytest.mark.parametrize("is_object", [True, False], ids=["torch's", "configured"])
def test_a_plateau_counts_fresh_values_only(
    values: list[float | None], drops: int, is_object: bool
) -> None:
    measures = Measures(*values)
    if is_object:
        trainer = build(
            measures,
            scheduler=lambda opt: ReduceLROnPlateau(opt, patience=1, factor=0.1),
            num_epochs=4,
        )
    else:
        plateau = LearningRateSchedulerCallback(type="plateau", patience=1)
        trainer = build(measures, plateau, num_epochs=4)
    trainer.train()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.1 * 0.1**drops, 0.02 * 0.1**drops])


def test_a_one_cycle_per_step_runs_to_its_end() -> None:
    trainer = build()
    one_cycle = OneCycleLR(trainer.optimizer, max_lr=[0.1, 0.02], total_steps=6)
    again = Trainer(
        model=trainer.model,
        train_dataloader=trainer.train_dataloader,
        optimizer=trainer.optimizer,
        callbacks=[LearningRateSchedulerCallback(one_cycle, interval="step")],
        gradient_accumulation_steps=2,
        device="cpu",
        num_epochs=2,
    )
    with pytest.raises(ConfigError, match="make it"):
        build_longer(trainer, one_cycle).train()
    again.train()
    assert again.update == 6


def build_longer(trainer: Trainer, scheduler: Any) -> Trainer:
    return Trainer(
        model=trainer.model,
        train_dataloader=trainer.train_dataloader,
        optimizer=trainer.optimizer,
        callbacks=[LearningRateSchedulerCallback(scheduler, interval="step")],
        device="cpu",
        num_epochs=3,
    )


def test_a_length_that_counts_updates_where_epochs_are_meant_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = build()
    trainer = Trainer(
        model=trainer.model,
        train_dataloader=trainer.train_dataloader,
        optimizer=trainer.optimizer,
        callbacks=[
            LearningRateSchedulerCallback(
                CosineAnnealingLR(trainer.optimizer, T_max=6), interval="epoch"
            )
        ],
        gradient_accumulation_steps=2,
        device="cpu",
        num_epochs=2,
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "pass interval='step'" in caplog.text


# Extending a finished run ------------------------------------


def finished(path: Path, **options: Any) -> None:
    """Leave a checkpoint of a run of two epochs that is done."""

    class Save(Callback):
        def on_checkpoint(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(path)

    build(LearningRateSchedulerCallback(**options), Save()).train()


@pytest.mark.parametrize(
    ("choice", "first"),
    [
        pytest.param("rescale", 0.05, id="rescale: half of four epochs are done"),
        pytest.param("new", 0.1, id="new: a fresh cycle over what is left"),
        pytest.param("keep", 0.0, id="keep: it has ended"),
    ],
)
def test_a_finished_schedule_is_extended_as_told(
    tmp_path: Path, choice: Any, first: float
) -> None:
    finished(tmp_path / "a.pt", type="cosine")
    longer = build(
        LearningRateSchedulerCallback(type="cosine", on_schedule_change=choice),
        num_epochs=4,
    )
    longer.load_checkpoint(tmp_path / "a.pt")
    longer.train()
    assert used(longer)[0] == pytest.approx(first)
    assert longer.epoch == 4


def test_a_finished_schedule_is_not_extended_silently(tmp_path: Path) -> None:
    finished(tmp_path / "a.pt", type="cosine")
    longer = build(LearningRateSchedulerCallback(type="cosine"), num_epochs=4)
    longer.load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="total is 12 now but 6"):
        longer.train()
    assert longer.step == 6
