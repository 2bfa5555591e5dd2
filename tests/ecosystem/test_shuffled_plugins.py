"""G13: equal selections give equal runs, whatever the order of arrival."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest

from training import Callback, Trainer
from training.discovery.specs import build_plugins
from training.testing.equality import run_difference
from training.testing.runs import tiny_trainer as make_trainer

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
        trainer = make_trainer(*instances, save_dir=tmp_path / str(number))
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
        trainer = make_trainer(
            plugins=listed, num_epochs=1, num_batches=2, save_dir=tmp_path / "run"
        )
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
