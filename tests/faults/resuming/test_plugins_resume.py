"""R6: what plugins count and write goes on without a hole and without a double."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.runs import SavesEverywhere, assert_same_end, build, end_of, loader_of
from tensorboard.summary.writer import event_file_writer
from torch.optim.lr_scheduler import OneCycleLR

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from trainbus_logging import CSVLoggerCallback, TensorBoardCallback
from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, Trainer

VALUES = (5.0, 4.0, 4.5, 4.6, 3.0, 3.5, 3.6, 3.7, 9.0, 9.0, 9.0, 9.0)


class Measures(Callback):
    """Delivers one value an epoch."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": VALUES[trainer.epoch - 1]}


class Dies(Callback):
    """Raises in an epoch, or at its end between its row and its checkpoint."""

    after = ("csv", "tensorboard")

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_batch_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise RuntimeError("killed")

    on_epoch_end = on_batch_end


def trainer_of(folder: Path, schedule: dict[str, Any], dies_at: int | None) -> Trainer:
    """Return a run with every shipped plugin that has progress."""
    trainer = build(
        Measures(),
        Dies(dies_at),
        EarlyStoppingCallback(patience=4, restore_best_weights=True),
        ModelCheckpointCallback(folder / "checkpoints", save_top_k=2, every_n_steps=4),
        CSVLoggerCallback(folder / "log.csv", every_n_steps=2),
        TensorBoardCallback(folder / "tb", every_n_steps=1),
        loader=loader_of(),
        num_epochs=len(VALUES),
    )
    if schedule["type"] == "one cycle":
        made = OneCycleLR(trainer.optimizer, 0.02, total_steps=6 * len(VALUES))
        plugin = LearningRateSchedulerCallback(made, interval="step")
    else:
        plugin = LearningRateSchedulerCallback(**schedule)
    trainer.bus.register(plugin)
    return trainer


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the CSV rows without their clock."""
    with (folder / "log.csv").open() as file:
        return [
            {k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)
        ]


def points_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of every curve, as TensorBoard shows it after purges."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "tb").iterdir()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("time/")
    }


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param({"type": "cosine", "warmup": 3}, id="cosine"),
        pytest.param({"type": "linear"}, id="linear"),
        pytest.param({"type": "plateau", "patience": 0}, id="plateau"),
        pytest.param({"type": "one cycle"}, id="one cycle"),
    ],
)
def test_r6_counters_rates_rows_and_points_after_eight_kills_are_those_of_no_kill(
    tmp_path: Path, schedule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorBoard reads files of one second in the order of a counter in their names,
    # as text: 10 before 9. A person's runs are other processes.
    counter = event_file_writer.AtomicCounter(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    straight = trainer_of(whole, schedule, None)
    straight.train()
    assert straight.stop_owner == "early_stopping"
    deaths = sorted({12, 42, *random.Random(6).sample(range(5, straight.step), 6)})
    for death in [*deaths, None]:
        trainer = trainer_of(broken, schedule, death)
        plugin = trainer.plugins["checkpointing"]
        found = [p for p, problem in plugin.resume_candidates(trainer) if not problem]
        if found:
            trainer.load_checkpoint(found[0])
        if death is None:
            trainer.train()
            break
        with pytest.raises(RuntimeError, match="killed"):
            trainer.train()
    assert_same_end(end_of(trainer), end_of(straight), "state")
    assert rows_of(broken) == rows_of(whole)
    steps = whole / "log.steps.csv"
    assert (broken / steps.name).read_bytes() == steps.read_bytes()
    points = points_of(whole)
    assert len(points["loss/train"]) == straight.step
    assert points_of(broken) == points
    for name in ("early_stopping", "lr_scheduling"):
        ours, theirs = trainer.plugins[name], straight.plugins[name]
        assert ours.state_dict() == theirs.state_dict()
    assert trainer.weights_are == straight.weights_are


class DrawsAsEpochsBegin(Callback):
    """Draws from all generators as each epoch begins, and keeps nothing."""

    mutates = ("rng",)

    def __init__(self) -> None:
        self.drawn: list[tuple[float, ...]] = []

    def on_epoch_begin(self) -> None:
        numbers = random.random(), float(np.random.rand()), float(torch.rand(()))
        self.drawn.append(numbers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["1-6", "1-9", "2-12"])
def test_what_a_hook_draws_as_an_epoch_begins_is_drawn_on_resuming_as_well(
    tmp_path: Path, name: str, workers: int
) -> None:
    def run(*others: Any) -> tuple[Trainer, DrawsAsEpochsBegin]:
        draws = DrawsAsEpochsBegin()
        loader = loader_of(workers=workers)
        return build(draws, *others, loader=loader, num_epochs=3), draws

    straight, drawn = run(SavesEverywhere(tmp_path))
    straight.train()
    resumed, drawn_again = run()
    resumed.train(resume=tmp_path / f"{name}.pt")
    assert_same_end(end_of(resumed), end_of(straight), "state")
    at_ends = {"1-6": 1, "1-9": 1, "2-12": 2}[name]
    if name != "1-9":  # inside the epoch it has begun, and is not asked to be drawn for
        assert drawn_again.drawn == drawn.drawn[at_ends:]


class StopsAsItBegins(Callback):
    """Ends the run, or saves it, as its second epoch begins; behind who draws."""

    after = ("DrawsAsEpochsBegin",)

    def __init__(self, path: Path, stops: bool) -> None:
        self.path, self.stops = path, stops

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            ask = trainer.request_stop if self.stops else trainer.request_checkpoint
            ask("here")

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if trainer.epoch == 1 and reason == ("stop" if self.stops else "here"):
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("stops", [True, False])
def test_what_a_hook_drew_before_a_stop_at_an_epochs_beginning_is_drawn_again(
    tmp_path: Path, stops: bool
) -> None:
    straight, drawn = build(num_epochs=3), DrawsAsEpochsBegin()
    straight.bus.register(drawn)
    straight.train()
    build(
        DrawsAsEpochsBegin(), StopsAsItBegins(tmp_path / "a.pt", stops), num_epochs=3
    ).train()
    resumed, again = build(num_epochs=3), DrawsAsEpochsBegin()
    resumed.bus.register(again)
    resumed.train(resume=tmp_path / "a.pt")
    assert again.drawn == drawn.drawn[1:]
    assert_same_end(end_of(resumed), end_of(straight), "state")


class DrawsAtCheckpoints(Callback):
    """Draws where the run is saved, before or behind who saves it."""

    mutates = ("rng",)
    on_checkpoint = DrawsAsEpochsBegin.on_epoch_begin

    def __init__(self, name: str) -> None:
        self.name, self.drawn = name, list[tuple[float, ...]]()


@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("at", ["1-6", "1-9", "2-12"])
def test_what_is_drawn_where_a_run_is_saved_moves_neither_it_nor_the_next(
    tmp_path: Path, at: str, name: str
) -> None:
    bare = build(num_epochs=3)
    bare.train()
    saving = SavesEverywhere(tmp_path)
    straight = build(saving, DrawsAtCheckpoints(name), num_epochs=3)
    straight.train()
    assert_same_end(end_of(straight), end_of(bare), "state")
    resumed = build(num_epochs=3)
    resumed.train(resume=tmp_path / f"{at}.pt")
    assert_same_end(end_of(resumed), end_of(straight), "state")
