"""The kit runs a plugin on two processes, and finds what is wrong only there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
import torch

from training import Callback, ConfigError, Trainer
from training.app.cli import main
from training.testing import CHECKS, assert_plugin_conforms
from training.testing.many_processes import is_possible

pytestmark = pytest.mark.skipif(not is_possible(), reason="nothing divides a run")

#: All checks but those that this is about.
OTHERS = [name for name in CHECKS if name not in ("processes", "signatures")]


class Named(Callback):
    name = "tried"
    hook_api = ">=1.1,<2"

    def on_setup(self, trainer: Trainer) -> None:
        self.began = time.time()


class StopsByItsClock(Named):
    def on_step_end(self, trainer: Trainer) -> None:
        if time.time() > self.began + 3000:
            trainer.request_stop("it is late")


class SavesByItsClock(Named):
    last = monotonic()

    def on_batch_end(self, trainer: Trainer) -> None:
        if monotonic() - self.last > timedelta(minutes=10).total_seconds():
            trainer.request_checkpoint("ten minutes")


class EvaluatesByRank(Named):
    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.rank == 1 and trainer.step == 2:
            trainer.request_evaluation("rank 1")


class SumsOnMain(Named):
    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.is_main:
            trainer.strategy.sum([1.0, 2.0])


class SavesOnMain(Named):
    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.is_main:
            trainer.save_checkpoint(trainer.save_dir / "a.pt")


class GathersAsMain(Named):
    ranks = "main"

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.strategy.gather(1)


class FailsAsMain(Named):
    """In a folder that nobody has made."""

    ranks = "main"

    def on_epoch_end(self, trainer: Trainer) -> None:
        (trainer.save_dir / "log.txt").write_text("an epoch")


class GathersAtTheEnd(Named):
    def on_train_end(self, trainer: Trainer) -> None:
        if trainer.is_main:
            trainer.strategy.gather(1)


class WritesEverywhere(Named):
    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.save_dir.mkdir(parents=True, exist_ok=True)
        with (trainer.save_dir / "log.txt").open("a") as file:
            file.write("an epoch\n")


class RenamesEverywhere(Named):
    def on_train_end(self, trainer: Trainer) -> None:
        trainer.save_dir.mkdir(parents=True, exist_ok=True)
        own = trainer.save_dir / f"{trainer.rank}.tmp"
        own.touch()
        own.replace(trainer.save_dir / "result.txt")


class FreezesLater(Named):
    """What a divided run cannot have in its second epoch, and says so there."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        for weight in trainer.model.layers[0].parameters():  # type: ignore[index,union-attr]
            weight.requires_grad_(trainer.epoch != 1)


class GivesUpLater(Named):
    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.world_size == 2 and trainer.step == 3:
            raise ConfigError("not on two processes")


class RefusesAtOnce(Named):
    def on_train_begin(self, trainer: Trainer) -> None:
        if trainer.world_size == 2:
            raise ConfigError("not on two processes")


class RightEverywhere(Named):
    """Decides by main's clock, writes on main, in a file of each rank and in none."""

    def on_step_end(self, trainer: Trainer) -> None:
        is_late = trainer.strategy.on_main(lambda: time.time() > self.began)
        if is_late and trainer.step == 3:
            trainer.request_stop("it is late")

    def on_train_end(self, trainer: Trainer) -> None:
        trainer.save_dir.mkdir(parents=True, exist_ok=True)
        (trainer.save_dir / f"rank{trainer.rank}.txt").write_text("own")
        with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile() as named:
            file.write(named.name.encode())
        path = trainer.save_dir / "all.txt"
        trainer.strategy.on_main(lambda: path.write_text("one"))


def found(make: type[Callback], folder: Path) -> str:
    try:
        assert_plugin_conforms(make, folder=folder, skip=OTHERS)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (StopsByItsClock, "on_step_end asks for stop at step 1 on rank 1 alone"),
        pytest.param(
            SavesByItsClock,
            "on_batch_end asks for checkpoint at step 0 on rank 1 alone",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            EvaluatesByRank,
            "on_step_end asks for evaluation at step 2 on rank 1 alone",
            marks=pytest.mark.exhaustive,
        ),
        (SumsOnMain, "is not there (rank 0 in tried.on_step_end"),
        pytest.param(
            GathersAsMain,
            "one waits for the other, which is not there",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            GathersAtTheEnd,
            "one waits for the other, which is not there",
            marks=pytest.mark.exhaustive,
        ),
        (GivesUpLater, "after 3 steps: ConfigError: not on two processes"),
        pytest.param(
            FreezesLater,
            "after 4 steps: ConfigError: layers.0.weight was frozen after the run had",
            marks=pytest.mark.exhaustive,
        ),
        (FailsAsMain, "processes: on 2 processes, after 4 steps: FileNotFoundError: "),
        (WritesEverywhere, "each writes 'log.txt' (on_epoch_end)"),
        pytest.param(
            RenamesEverywhere,
            "each writes 'result.txt' (on_train_end)",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_d26_the_kit_finds(make: type[Callback], says: str, tmp_path: Path) -> None:
    assert says in found(make, tmp_path)


MINE = """
import time

from training import Callback


class Hasty(Callback):
    def on_setup(self, trainer):
        self.began = time.time()

    def on_step_end(self, trainer):
        if time.time() > self.began + 1000.0:
            trainer.request_stop("late")
"""


def test_d26_the_command_tries_a_plugin_on_two_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert main(["plugins", "check", f"{tmp_path}/mine.py:Hasty"]) == 2
    assert "on_step_end asks for stop at step 1 on rank 1" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_d26_what_divides_the_run_may_be_given_options(tmp_path: Path) -> None:
    divided = [{"distributed": {"find_unused_parameters": True}}]
    assert_plugin_conforms(FreezesLater, folder=tmp_path, skip=OTHERS, plugins=divided)


@pytest.mark.exhaustive
def test_d26_the_kit_finds_a_save_on_main_alone(tmp_path: Path) -> None:
    assert "one waits for the other, which is not" in found(SavesOnMain, tmp_path)


@pytest.mark.parametrize("make", [RightEverywhere, RefusesAtOnce])
def test_d26_the_kit_lets_pass_what_is_right(
    make: type[Callback], tmp_path: Path
) -> None:
    assert found(make, tmp_path) == ""


def test_where_torch_sees_a_gpu_it_is_said_that_two_processes_were_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="not tried on two processes: where torch"):
        assert_plugin_conforms(StopsByItsClock, folder=tmp_path, skip=OTHERS)


#: More passes within passes than torch has room for in one thread.
DEEP = """
import os, sys, warnings
from pathlib import Path
import torch
from training.testing import CHECKS, assert_plugin_conforms
from training import Callback

class Deeper(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, depth):
        ctx.depth = depth
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.depth:
            go(ctx.depth - 1)
        return gradient, None

@torch.enable_grad()
def go(depth):
    Deeper.apply(torch.ones((), requires_grad=True), depth).backward()

class Tried(Callback):
    name = "tried"

    def on_step_end(self, trainer):
        pass

go(int(sys.argv[1]))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always", UserWarning)
    others = [name for name in CHECKS if name != "processes"]
    assert_plugin_conforms(Tried, folder=Path("kit"), skip=others)
print(*(each.message for each in told if "not tried" in str(each.message)), flush=True)
os._exit(0)  # torch does not end such threads
"""


@pytest.mark.parametrize(("depth", "is_told"), [(70, True), (1, False)])
def test_where_a_backward_pass_has_begun_threads_it_is_said_too(
    depth: int, is_told: bool, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DEEP, str(depth)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("not tried on two processes" in done.stdout) is is_told
