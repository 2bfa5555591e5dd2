"""A run that was killed between the saves of two keepers of its checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from trainbus_checkpointing.manifest import Manifest
from training import Callback, Trainer
from training.plugin import read_checkpoint

from .dying_keeper import KILLED, build
from .listed import files

SCRIPT = Path(__file__).with_name("dying_keeper.py")
BEST, BEFORE = "checkpoint-002-0.9000.pt", "checkpoint-001-0.5000.pt"
WAYS = pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in thread"])


def killed(folder: Path, file: str, is_async: bool = False) -> None:
    """Train until ``file`` is written, and die there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), str(folder), file, str(is_async)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == KILLED, done.stderr


class Looks(Callback):
    """Notes what the folders hold as training begins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: list[str] = []
        self.second: list[str] = []

    def on_step_end(self) -> None:
        if not self.first:
            self.first = files(self.folder / "first")
            self.second = files(self.folder / "second")


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [each.detach().clone() for each in trainer.model.parameters()]


class Averages(Callback):
    """Has an average of the weights from the beginning of a run on: a usual pattern."""

    after = ("first", "second")

    def __init__(self) -> None:
        self.loaded: list[torch.Tensor] | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        self.means = weights(trainer) if self.loaded is None else self.loaded

    def on_step_end(self, trainer: Trainer) -> None:
        for mean, value in zip(self.means, weights(trainer), strict=True):
            mean.lerp_(value, 0.1)

    def needed_checkpoints(self) -> set[int]:
        return {len(self.means)}  # of none, once there are any

    def state_dict(self) -> dict[str, Any]:
        return {"means": [mean.clone() for mean in self.means]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state["means"]


@WAYS
def test_a_best_that_a_killed_run_had_no_time_to_write_is_written_by_the_one_resumed(
    tmp_path: Path, is_async: bool
) -> None:
    straight = build(tmp_path / "straight")
    straight.train()
    folder = tmp_path / "run"
    killed(folder, f"second/{BEST}", is_async)
    assert files(folder / "second") == [BEFORE]
    source = folder / "first" / "checkpoint-002-3.0000.pt"
    looks = Looks(folder)
    again = build(folder, ("looks", looks), is_async=is_async)
    again.train(resume="auto")
    assert looks.second == [BEST]
    second = again.plugins["second"]
    assert second.best_path == folder / "second" / BEST
    assert files(folder / "second") == files(tmp_path / "straight" / "second")
    # It is the state that was resumed, and a run goes on from it to the bit.
    assert second.best_path.read_bytes() == source.read_bytes()
    last = build(folder)
    last.train(resume=second.best_path)
    for run in (again, last):
        for own, other in zip(weights(run), weights(straight), strict=True):
            assert torch.equal(own, other)


def test_a_last_checkpoint_that_a_killed_run_had_no_time_to_write_is_written_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed(tmp_path, "second/last-epoch004")
    again = build(tmp_path)
    again.train(resume="auto")
    assert "nothing to train" in caplog.text
    assert again.plugins["second"].last_path.name == "last-epoch004-step8.pt"
    last = json.loads((tmp_path / "second" / "last.json").read_text())
    assert last["step"] == 8
    summary = again.plugins["second"].summary()
    assert summary["paths"]["last_checkpoint"].endswith("last-epoch004-step8.pt")
    # And once: another start finds it.
    before = files(tmp_path / "second")
    build(tmp_path).train(resume="auto")
    assert files(tmp_path / "second") == before


@pytest.mark.parametrize(
    "then", [f"second/{BEST}", "first/checkpoint-003"], ids=["in it", "after it"]
)
def test_a_run_that_is_killed_again_has_its_best_in_the_end(
    tmp_path: Path, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    killed(tmp_path, f"second/{BEST}")
    killed(tmp_path, then)
    again = build(tmp_path)
    again.train(resume="auto")
    assert again.plugins["second"].best_path == tmp_path / "second" / BEST
    listed = Manifest.read(tmp_path / "second")
    assert listed.entries == listed.current
    assert "of other runs" not in caplog.text


def test_a_keeper_to_which_the_boundary_says_nothing_writes_nothing(
    tmp_path: Path,
) -> None:
    killed(tmp_path, f"second/{BEST}")
    looks = Looks(tmp_path)
    second: dict[str, Any] = {"save_frequency": 3, "frequency_applies_to_best": True}
    build(tmp_path, ("looks", looks), **second).train(resume="auto")
    assert looks.second == [BEFORE]


def test_a_keeper_that_is_new_in_the_resumed_run_begins_with_its_first_boundary(
    tmp_path: Path,
) -> None:
    run = build(tmp_path, has_second=False)
    run.num_epochs = 2
    run.train()
    looks = Looks(tmp_path)
    build(tmp_path, ("looks", looks)).train(resume="auto")
    assert looks.second == []


class Copies(Callback):
    """Copies what the second keeper has as its turn comes after the second epoch."""

    after, before = ("first",), ("second",)

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if reason == "epoch_end" and trainer.epoch == 2:
            folder = Path(trainer.save_dir)
            shutil.copytree(folder / "second", folder / "copy")


def take_turn(folder: Path, run: Trainer) -> None:
    """Train as a run that a kill ends between the saves of the second epoch."""
    run.bus.register(Copies())
    run.num_epochs = 2
    run.train()
    shutil.rmtree(folder / "second")
    (folder / "copy").rename(folder / "second")
    assert files(folder / "second") == [BEFORE]


def test_a_save_that_was_missed_holds_what_plugins_behind_the_keeper_were_resumed_with(
    tmp_path: Path,
) -> None:
    straight, again, last = Averages(), Averages(), Averages()
    build(tmp_path / "straight", ("averages", straight)).train()
    folder = tmp_path / "run"
    take_turn(folder, build(folder, ("averages", Averages())))
    run = build(folder, ("averages", again))
    run.train(resume="auto")
    best = run.plugins["second"].best_path
    assert best.name == BEST
    build(folder, ("averages", last)).train(resume=best)
    for averages in (again, last):
        for own, other in zip(averages.means, straight.means, strict=True):
            assert torch.equal(own, other)


def test_a_file_of_all_weights_is_no_save_of_the_trained_alone_that_was_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looks = Looks(tmp_path)
    first = build(tmp_path, weights="trained")
    then = build(tmp_path, ("looks", looks), weights="trained")
    for run in (first, then):
        run.model[0].requires_grad_(False)
    take_turn(tmp_path, first)
    then.train(resume="auto")
    assert looks.second == [BEFORE]
    told = f"had written {BEST}, for epoch 2, step 4, to {tmp_path / 'second'}"
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("has_second", [False, True], ids=["alone", "one of two"])
def test_a_keeper_that_had_its_turn_writes_nothing_again(
    tmp_path: Path, has_second: bool
) -> None:
    run = build(tmp_path, has_second=has_second)
    run.num_epochs = 3
    run.train()
    before = files(tmp_path / "first"), files(tmp_path / "second")
    looks = Looks(tmp_path)
    build(tmp_path, ("looks", looks), has_second=has_second).train(resume="auto")
    assert (looks.first, looks.second) == before


def test_from_the_middle_of_a_run_later_files_of_each_keeper_stay_and_none_is_added(
    tmp_path: Path,
) -> None:
    build(tmp_path).train()
    later = tmp_path / "second" / "last-epoch004-step8.pt"
    before, content = files(later.parent), later.read_bytes()
    assert before == [BEST, later.name]
    looks = Looks(tmp_path)
    source = tmp_path / "first" / "checkpoint-003-2.0000.pt"
    build(tmp_path, ("looks", looks)).train(resume=source)
    assert looks.second == before
    assert later.read_bytes() == content


def test_from_an_older_file_a_keeper_that_has_later_ones_makes_nothing_up(
    tmp_path: Path,
) -> None:
    run = build(tmp_path)
    run.num_epochs = 3
    run.train()
    before = files(tmp_path / "second")
    looks = Looks(tmp_path)
    source = tmp_path / "first" / "checkpoint-001-4.0000.pt"
    build(tmp_path, ("looks", looks)).train(resume=source)
    assert looks.second == before


class Saves(Callback):
    """Saves as training begins, before any keeper has opened its folder."""

    before = ("first", "second")

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)


def test_what_is_saved_before_a_keeper_has_begun_has_its_state_as_it_was_resumed(
    tmp_path: Path,
) -> None:
    run = build(tmp_path)
    run.num_epochs = 2
    run.train()
    source = run.plugins["second"].last_path
    again = build(tmp_path, ("saves", Saves(tmp_path / "own.pt")))
    again.train(resume=source)
    was, now = read_checkpoint(source), read_checkpoint(tmp_path / "own.pt")
    for name in ("first", "second"):
        assert now["plugins"][name] == was["plugins"][name], name
