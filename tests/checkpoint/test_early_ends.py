"""R1: a run that ``max_steps`` ends inside an epoch goes on as if it had not ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from training import (
    Callback,
    EarlyStoppingCallback,
    EvaluationCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    Trainer,
)

#: Steps of an epoch.
STEPS = 6


def plateau() -> Callback:
    return LearningRateSchedulerCallback(
        type="plateau", patience=0, factor=0.5, threshold=0.05
    )


def falls_each_epoch() -> Callback:
    return LearningRateSchedulerCallback(
        type="step", interval="epoch", step_size=1, gamma=0.5
    )


def stopper(restores: bool = False) -> Callback:
    return EarlyStoppingCallback(
        patience=2, min_delta=0.3, restore_best_weights=restores
    )


def restorer() -> Callback:
    return stopper(restores=True)


def plateau_of_training() -> Callback:
    return LearningRateSchedulerCallback(
        type="plateau", monitor="train_loss", patience=0, factor=0.5, threshold=0.5
    )


def stopper_of_training() -> Callback:
    return EarlyStoppingCallback(
        monitor="train_loss", patience=2, min_delta=0.3, restore_best_weights=True
    )


class Stream(IterableDataset[Any]):
    """The rows of a data set one after another; it has no length."""

    def __init__(self, rows: TensorDataset) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(len(self.rows)))


def build(
    folder: Path,
    decider: Callback,
    every: int | None = None,
    is_stream: bool = False,
    monitor: str = "val_loss",
    **how: Any,
) -> Trainer:
    """Return a run whose validation loss soon stops falling."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(4 * STEPS, 6, generator=generator)
    targets = inputs.sum(1, keepdim=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    rows = TensorDataset(inputs, targets)
    loader: Any = DataLoader(rows, 4, shuffle=True)
    return Trainer(
        model,
        DataLoader(Stream(rows), 4) if is_stream else loader,
        val_dataloader=DataLoader(TensorDataset(inputs + 0.5, targets), 8),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        seed=1,
        save_dir=folder,
        device="cpu",
        plugins=["no:progress"],
        callbacks=[
            EvaluationCallback(every_n_steps=every),
            ModelCheckpointCallback(folder / "saved", monitor=monitor),
            decider,
        ],
        **{"num_epochs": 6, **how},
    )


def ended(trainer: Trainer) -> list[Any]:
    weights = [p.tolist() for p in trainer.model.parameters()]
    rate = trainer.optimizer.param_groups[0]["lr"]
    return [trainer.step, trainer.stop_owner, rate, weights]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("every", [None, 3, 4])
@pytest.mark.parametrize("decider", [plateau, stopper, restorer])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, STEPS, 2 * STEPS + 3])
def test_r1_a_run_that_max_steps_ended_decides_as_one_that_went_on(
    tmp_path: Path, decider: Any, steps: int, every: int | None, is_stream: bool
) -> None:
    straight = build(tmp_path / "straight", decider(), every, is_stream)
    straight.train()
    assert straight.step < 6 * STEPS or straight.optimizer.param_groups[0]["lr"] < 0.1
    build(tmp_path, decider(), every, is_stream, max_steps=steps).train()
    goes_on = build(tmp_path, decider(), every, is_stream)
    goes_on.train(resume="auto")
    assert ended(goes_on) == ended(straight)


class Looks(Callback):
    """Notes which metrics it finds when it is told of some."""

    name = "looks"

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}

    def on_metrics(self, trainer: Trainer, metrics: Any) -> None:
        latest = {name: (m.value, m.step) for name, m in trainer.metrics.items()}
        self.found[trainer.step] = (*map(dict, (metrics, latest)),)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("every", [None, 2, 3])
@pytest.mark.parametrize("decider", [plateau_of_training, stopper_of_training])
@pytest.mark.parametrize("steps", [2, 3, STEPS, STEPS + 2, STEPS + 3, 3 * STEPS + 2])
def test_r1_a_training_loss_of_a_part_of_an_epoch_decides_and_ranks_nothing(
    tmp_path: Path, decider: Any, steps: int, every: int | None, is_stream: bool
) -> None:
    how: Any = every, is_stream, "train_loss"
    straight = build(tmp_path / "straight", decider(), *how)
    straight.train()
    assert straight.step < 6 * STEPS or straight.optimizer.param_groups[0]["lr"] < 0.1
    first = build(tmp_path, decider(), *how, max_steps=steps)
    first.train()
    # The part is in its row, and ranks no file.
    assert first.history[-1]["train_loss"] > 0.0
    assert (best_of(first) is None) == (steps < STEPS or (is_stream and steps == STEPS))
    goes_on = build(tmp_path, decider(), *how)
    goes_on.train(resume="auto")
    assert ended(goes_on) == ended(straight)
    assert best_of(goes_on) == best_of(straight)
    assert goes_on.weights_are == straight.weights_are


def best_of(trainer: Trainer) -> str | None:
    path = trainer.plugins["checkpointing"].best_path
    return None if path is None else path.name


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 2])
def test_what_was_asked_for_where_max_steps_ends_a_run_is_told_as_if_it_went_on(
    tmp_path: Path, steps: int, is_stream: bool
) -> None:
    straight, first, goes_on = Looks(), Looks(), Looks()
    build(tmp_path / "straight", straight, 2, is_stream).train()
    build(tmp_path, first, 2, is_stream, max_steps=steps).train()
    build(tmp_path, goes_on, 2, is_stream).train(resume="auto")
    told, found = first.found[steps]
    if again := goes_on.found.pop(steps, None):  # it was the whole epoch
        told, found = told | again[0], again[1]
    assert (told, found) == straight.found.pop(steps)
    first.found.pop(steps)
    assert first.found | goes_on.found == straight.found


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS, STEPS + 2, 2 * STEPS])
def test_r1_a_rate_that_falls_each_epoch_falls_as_in_a_run_that_went_on(
    tmp_path: Path, steps: int
) -> None:
    # Without a length only the next batch tells that an epoch is over.
    build(tmp_path, falls_each_epoch(), is_stream=True, max_steps=steps).train()
    goes_on = build(tmp_path, falls_each_epoch(), is_stream=True)
    goes_on.train(resume="auto")
    straight = build(tmp_path / "straight", falls_each_epoch(), is_stream=True)
    straight.train()
    assert straight.optimizer.param_groups[0]["lr"] == 0.1 * 0.5**6
    assert ended(goes_on) == ended(straight)


def test_its_last_weights_may_be_the_best(tmp_path: Path) -> None:
    early = stopper(restores=True)
    trainer = build(tmp_path, early, max_steps=STEPS + 2)
    trainer.train()
    first, last = (row["val_loss"] for row in trainer.history)
    assert last < first
    assert (early.best_value, early.best_step) == (last, STEPS + 2)
    assert trainer.weights_are == f"best@{STEPS + 2}"


class Notes(Callback):
    """Notes which evaluations are extra ones, and may let the run go on after one."""

    def __init__(self, more: int = 0) -> None:
        self.seen: list[tuple[int, bool]] = []
        self.more = more

    def on_metrics(self, trainer: Trainer) -> None:
        self.seen.append((trainer.step, trainer.is_extra_evaluation))
        if trainer.is_extra_evaluation and self.more:
            trainer.max_steps, self.more = self.more, 0


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ({"max_steps": 8}, [(6, False), (8, True)]),
        ({"max_steps": 8, "every": 4}, [(4, False), (6, False), (8, False)]),
        ({"max_steps": 12}, [(6, False), (12, False)]),
        ({"num_epochs": 1}, [(6, False)]),
    ],
)
def test_an_evaluation_is_extra_where_a_run_with_more_steps_has_none(
    tmp_path: Path, how: dict[str, Any], seen: list[Any]
) -> None:
    notes = Notes()
    build(tmp_path, notes, **how).train()
    assert notes.seen == seen


@pytest.mark.parametrize("every", [None, 4])
def test_a_part_of_an_epoch_is_told_from_a_whole_one_whatever_was_measured(
    tmp_path: Path, every: int | None
) -> None:
    class Ends(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            told.append((trainer.step, trainer.epoch, trainer.is_extra_evaluation))

    told: list[tuple[int, int, bool]] = []
    build(tmp_path, Ends(), every, max_steps=8).train()
    build(tmp_path, Ends(), every, num_epochs=2).train(resume="auto")
    assert told == [(6, 1, False), (8, 1, True), (12, 2, False)]


def test_where_the_run_goes_on_after_one_the_next_is_none(tmp_path: Path) -> None:
    notes = Notes(more=11)
    build(tmp_path, notes, every=5, max_steps=4).train()
    assert notes.seen == [(4, True), (5, False), (6, False), (10, False), (11, True)]
