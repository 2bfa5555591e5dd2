"""G13: equal selections give equal runs; what was used may be used again, or copied."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import random
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training import Callback, Trainer
from training.callbacks import (
    CSVLoggerCallback,
    EarlyStoppingCallback,
    EvaluationCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
)
from training.discovery.specs import build_plugins
from training.testing.equality import run_difference
from training.testing.runs import tiny_trainer as make_trainer
from training.testing.toys import FixedDuration

Make = Callable[..., Any]


def test_50_shuffles_of_arrival_give_equal_runs(tmp_path: Any) -> None:
    specs: list[Any] = [
        {"lr_scheduling": {"type": "cosine"}},
        {"checkpointing": {"every_n_steps": 3}},
        {"early_stopping": {"patience": 1}},
        {"progress": {"verbose": 0}},
        "csv",
    ]

    class Halves(Callback):
        name = "halves"
        after = ("doubles_and_adds",)

        def on_before_step(self, trainer: Any) -> None:
            for weight in trainer.model.parameters():
                weight.grad.mul_(0.5)

    class Adds(Halves):
        name = "doubles_and_adds"
        after = ()

        def on_before_step(self, trainer: Any) -> None:
            for weight in trainer.model.parameters():
                weight.grad.mul_(2).add_(0.1)

    def run(number: int) -> Trainer:
        shuffle = random.Random(number)
        instances = [Halves(), Adds(), *(plugin for _, plugin in build_plugins(specs))]
        shuffle.shuffle(instances)
        trainer = make_trainer(
            FixedDuration(), *instances, save_dir=tmp_path / str(number)
        )
        trainer.train()
        return trainer

    first = run(0)
    order = list(first.plugins)
    for number in range(1, 50):
        again = run(number)
        assert list(again.plugins) == order
        assert run_difference(again, first, "early_stopping") == ""


SCALES = """
from training import Callback

class Scales(Callback):
    name, after = {name!r}, {after!r}

    def on_before_step(self, trainer):
        for weight in trainer.model.parameters():
            weight.grad.mul_({factor}).add_({term})
"""


def test_50_shuffles_of_installation_give_equal_runs(
    install: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, after, factor, term in (
        ("first", ("second",), 0.5, 0.0),
        ("second", (), 2.0, 0.1),
        ("third", ("first",), 1.0, 0.2),
        ("fourth", (), 3.0, 0.3),
    ):
        source = SCALES.format(name=name, after=after, factor=factor, term=term)
        install(f"scales-{name}", f"{name} = scales_{name}:Scales", source)
    names = ["first", "second", "third", "fourth"]

    def run(number: int) -> Trainer:
        shuffle = random.Random(number)
        path = list(sys.path)
        shuffle.shuffle(path)
        monkeypatch.setattr(sys, "path", path)
        listed = shuffle.sample(names, len(names))
        options = {"num_epochs": 1, "num_batches": 2, "save_dir": tmp_path / "run"}
        trainer = make_trainer(FixedDuration(), plugins=listed, **options)
        trainer.train()
        return trainer

    first = run(0)
    order = list(first.plugins)
    assert [name for name in order if name in names] == [
        *("fourth", "second", "first", "third")
    ]
    for number in range(1, 50):
        again = run(number)
        assert list(again.plugins) == order
        assert run_difference(again, first, "first") == ""


def test_the_same_plugin_takes_part_twice_under_two_ids(tmp_path: Any) -> None:
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    pairs = build_plugins(
        [{"csv": {"filename": files[0]}}, {"csv": {"filename": files[1], "id": "two"}}]
    )
    trainer = make_trainer(plugins=pairs, save_dir=tmp_path, num_epochs=1)
    trainer.train()
    assert {"csv", "two"} <= set(trainer.plugins)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


USED = {
    "checkpointing": lambda: ModelCheckpointCallback(monitor="val_loss"),
    "checkpointing in a thread": lambda: ModelCheckpointCallback(async_save=True),
    "checkpointing of what is trained": lambda: ModelCheckpointCallback(
        weights="trained"
    ),
    "early stopping": lambda: EarlyStoppingCallback(restore_best_weights=True),
    "evaluation": lambda: EvaluationCallback(metrics=["accuracy"]),
    "csv": CSVLoggerCallback,
    "lr_scheduling": lambda: LearningRateSchedulerCallback(type="linear"),
    "progress": ProgressBarCallback,
}


class Raises(Callback):
    def on_epoch_end(self) -> None:
        raise ArithmeticError


def trained_with(plugin: Any, folder: Path, *others: Any) -> Trainer:
    """Return a trainer whose run, of two epochs, has ended in whatever way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    loader = [(torch.randn(4, 4), torch.tensor([0, 1, 1, 0])) for _ in range(3)]
    trainer = Trainer(
        *(model, loader, loader),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.1),
        loss_fn=nn.functional.cross_entropy,
        callbacks=[plugin, *others],
        num_epochs=2,
        device="cpu",
        save_dir=folder,
    )
    with contextlib.suppress(ArithmeticError):
        trainer.train()
    return trainer


# A schedule is the optimizer's, whose rates it goes on from in a later run.
@pytest.mark.parametrize("others", [(), (Raises(),)], ids=["ended", "failed"])
@pytest.mark.parametrize("name", [name for name in USED if name != "lr_scheduling"])
def test_who_keeps_a_used_plugin_keeps_no_trainer(
    name: str, others: Sequence[Any], tmp_path: Path
) -> None:
    used = USED[name]()
    trainer = trained_with(used, tmp_path, *others)
    parts = (trainer, trainer.model, trainer.optimizer, *trainer.model.parameters())
    kept = [weakref.ref(part) for part in parts]
    del trainer, parts
    gc.collect()
    assert [part() for part in kept] == [None] * len(kept)


@pytest.mark.parametrize("make_used", USED.values(), ids=USED)
def test_a_used_plugin_is_copied_as_a_new_one_is(
    make_used: Callable[[], Any], tmp_path: Path
) -> None:
    used = make_used()
    trained_with(used, tmp_path / "a")
    other = copy.deepcopy(pickle.loads(pickle.dumps(used)))
    for name in ("best_path", "best_value", "last_path", "stopped_epoch"):
        assert getattr(other, name, None) == getattr(used, name, None)
    again, first = trained_with(other, tmp_path / "b"), trained_with(used, tmp_path)
    assert again.history[-1]["train_loss"] == first.history[-1]["train_loss"]


def test_a_used_evaluation_measures_a_trainer_again(tmp_path: Path) -> None:
    used = EvaluationCallback(metrics=["accuracy"])
    trainer = trained_with(used, tmp_path)
    latest = {name: trainer.metrics[name].value for name in ("val_loss", "accuracy")}
    assert used.measure(trainer) == latest
    other = trained_with(EvaluationCallback(), tmp_path / "other")
    for parameter in other.model.parameters():
        parameter.data.fill_(9.0)
    assert used.measure(other) != latest, "it would be the model of the one before"
    kept = weakref.ref(other.model)
    del other, parameter
    gc.collect()
    assert kept() is None
