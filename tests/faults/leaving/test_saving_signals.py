"""P17: one signal that meets a save in a thread waits for it; only a second leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.runs import assert_same_end, build, end_of
from processes import python

from trainbus_checkpointing import ModelCheckpointCallback, saver
from trainbus_checkpointing.in_flight import Background
from training import Callback, CheckpointError, Trainer
from training.checkpoint_io import read_checkpoint

INT, TERM = signal.SIGINT, signal.SIGTERM
WHERE = ["state_dict", "on_checkpoint before", "on_checkpoint after"]
#: In the middle of an epoch, at its end, and at the end of the plan.
STEPS = pytest.mark.parametrize("step", [4, 6, 12], ids="step {}".format)


class Acts(Callback):
    """Does something once, at one moment of one step."""

    def __init__(self, where: str, step: int, act: Callable[[], object]) -> None:
        self.where, self.step, self.act = where, step, act
        self.trainer: Trainer | None = None
        side = "before" if where.endswith("before") else "after"
        setattr(self, side, ("checkpointing",))

    def on_train_begin(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_checkpoint(self) -> None:
        self._reach("on_checkpoint")

    def state_dict(self) -> dict[str, Any]:
        self._reach("state_dict")
        return {}

    def load_state_dict(self, state: Any) -> None:
        """It has none."""

    def _reach(self, hook: str) -> None:
        here = self.trainer is not None and self.trainer.step == self.step
        if here and self.where.startswith(hook):
            self.where = "done"
            self.act()


def saving(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    given = {"monitor": None, "every_n_steps": 2, "async_save": True, **options}
    return build(*callbacks, ModelCheckpointCallback(folder, **given))


def listed_steps(folder: Path) -> list[int]:
    """Return the steps in the list, each of a whole file with that very state."""
    listed = json.loads((folder / "manifest.json").read_text())["checkpoints"]
    for each in listed:
        state = read_checkpoint(folder / each["file"])
        assert state["progress"]["step"] == each["step"]
    assert {each["file"] for each in listed} == {p.name for p in folder.glob("*.pt*")}
    return [each["step"] for each in listed]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a thread writes under way for as long as nobody waits for it."""
    real = saver.write_checkpoint

    def write(path: Path, state: Any) -> Path:
        threading.Event().wait(0.1)
        return real(path, state)

    monkeypatch.setattr(saver, "write_checkpoint", write)


@STEPS
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("act", "error"),
    [
        pytest.param(lambda: signal.raise_signal(TERM), SystemExit, id="SIGTERM"),
        pytest.param(lambda: signal.raise_signal(INT), KeyboardInterrupt, id="SIGINT"),
    ],
)
def test_p17_one_signal_at_a_save_leaves_a_listed_checkpoint_of_its_boundary(
    tmp_path: Path, slow: None, where: str, step: int, act: Any, error: Any
) -> None:
    whole = saving(tmp_path / "whole")
    whole.train()
    folder = tmp_path / "signalled"
    with pytest.raises(error):
        saving(folder, Acts(where, step, act)).train()
    assert listed_steps(folder) == [step]
    rest = saving(folder, Acts("nowhere", 0, lambda: None))
    ((path, problem),) = rest.plugins["checkpointing"].resume_candidates(rest)
    assert problem is None
    rest.load_checkpoint(path)
    rest.train()
    assert_same_end(end_of(rest), end_of(whole), f"{where} at step {step}")


def test_p17_an_exit_of_somebody_else_waits_for_what_is_written(
    tmp_path: Path, slow: None
) -> None:
    with pytest.raises(SystemExit, match="3"):
        saving(tmp_path, Acts("on_checkpoint after", 4, lambda: sys.exit(3))).train()
    assert listed_steps(tmp_path) == [4]


def test_p17_a_second_signal_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_over = saver.write_checkpoint, threading.Event()

    def write(path: Path, state: Any) -> Path:
        if state["progress"]["step"] == 4:
            is_over.wait(20)  # the run, which has left it under way
        return real(path, state)

    monkeypatch.setattr(saver, "write_checkpoint", write)

    def twice() -> None:
        signal.raise_signal(TERM)
        signal.raise_signal(TERM)

    trainer = saving(tmp_path, Acts("on_checkpoint after", 4, twice))
    with pytest.raises(SystemExit, match="143"):
        trainer.train()
    listed = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert [each["step"] for each in listed] == [2]
    background = trainer.plugins["checkpointing"]._saver.store._background
    assert background.is_working
    is_over.set()
    assert background.finish(wait=True)


def test_p17_the_last_save_of_a_signalled_run_is_tried_again_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a failed save may be passed over: this one is what will be resumed."""
    real, failed = saver.write_checkpoint, []

    def write(path: Path, state: Any) -> Path:
        if state["progress"]["step"] == 4:
            failed.append(path)
            raise CheckpointError(f"{path}: no space left")
        return real(path, state)

    monkeypatch.setattr(saver, "write_checkpoint", write)
    act = Acts("on_checkpoint after", 4, lambda: signal.raise_signal(TERM))
    with pytest.raises(SystemExit, match="143"):
        saving(tmp_path, act, on_save_error="warn").train()
    assert failed
    assert listed_steps(tmp_path) == [4]


def test_p17_a_wait_that_a_signal_ends_does_not_take_the_work_for_done() -> None:
    background = Background()
    waits, told, gate = threading.Event(), threading.Event(), threading.Event()
    waiting = threading.get_ident()

    def stop(*_: object) -> None:
        if not told.is_set():
            told.set()
            raise KeyboardInterrupt

    def work() -> None:
        waits.wait(20)
        # Again until it is heard: a signal just before a wait does not end that.
        # To this thread itself: of a process's signals any thread may be told.
        while not told.wait(0.05):
            signal.pthread_kill(waiting, INT)
        gate.wait(20)

    def wait() -> None:
        waits.set()
        background.finish(wait=True)

    before = signal.signal(INT, stop)
    background.start(work)
    with pytest.raises(KeyboardInterrupt):
        wait()
    signal.signal(INT, before)
    assert not background.finish(wait=False)
    gate.set()
    assert background.finish(wait=True)


PROCESS = """
import os, signal, sys, threading, time
from pathlib import Path
from faults.leaving.test_saving_signals import Acts, saving
from training import checkpoint_io
real, signals = checkpoint_io.torch.save, int(sys.argv[2])
def save(content, file):
    file.flush()
    if signals == 2 and content["progress"]["step"] == 4:
        threading.main_thread().join()  # it has left this under way
    time.sleep(0.5)
    real(content, file)
checkpoint_io.torch.save = save
def send():
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGTERM)
saving(Path(sys.argv[1]), Acts("on_checkpoint after", 4, send)).train()
"""


@pytest.mark.parametrize(
    ("signals", "listed"),
    [pytest.param(1, [4], id="one"), pytest.param(2, [2], id="two")],
)
def test_p17_the_process_ends_with_143_and_leaves_no_half_of_a_file(
    tmp_path: Path, signals: int, listed: list[int]
) -> None:
    os.pathsep.join(filter(None, sys.path))
    done = python("-c", PROCESS, str(tmp_path), str(signals))
    assert done.returncode == 143, done.stderr
    found = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert [each["step"] for each in found] == listed
    for file in tmp_path.glob("*.pt*"):
        read_checkpoint(file)
