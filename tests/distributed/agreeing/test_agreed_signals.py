"""A signal that reaches any process makes all save and leave at the same step."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ranks import Ranks, torchrun
from toy import Regression, make_trainer, regression_batches

from training import Callback, TrainbusError, Trainer
from training.signals.handlers import handled

pytestmark = pytest.mark.distributed

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
HOOKS = ["on_setup", "on_train_begin", "on_epoch_begin", "on_batch_begin"]
HOOKS += ["on_before_step", "on_step_end", "evaluate", "on_metrics", "on_epoch_end"]
HOOKS += ["on_checkpoint", "state_dict", "on_train_end"]


class Told(Callback):
    """Sends its own process a signal, once, from step ``at`` on.

    Args:
        hook: in which.
        number: the signal.
        at: the least step.
        ranks: the processes that are told.
        times: how often.
    """

    def __init__(
        self, hook: str, number: int, at: int, ranks: list[int], times: int = 1
    ) -> None:
        self.hook, self.number, self.at = hook, number, at
        self.whom, self.left = ranks, times
        self.trainer: Any = None
        self.saved: list[Any] = []

    def wrap_model(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def tell(self, hook: str) -> None:
        trainer = self.trainer
        is_there = trainer is not None and trainer.step >= self.at
        if hook == self.hook and is_there and trainer.rank in self.whom:
            while self.left:
                self.left -= 1
                os.kill(os.getpid(), self.number)

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        stop = trainer.is_stopping
        self.saved.append((plainly(reason), trainer.epoch, trainer.step, stop))
        self.tell("on_checkpoint")

    def state_dict(self) -> dict[str, Any]:
        self.tell("state_dict")
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass

    def evaluate(self) -> dict[str, float]:
        self.tell("evaluate")
        return {"val_loss": 1.0}


def _telling(hook: str) -> Any:
    return lambda self: self.tell(hook)


for _hook in HOOKS:
    if not hasattr(Told, _hook) or getattr(Told, _hook) is getattr(Callback, _hook, 0):
        setattr(Told, _hook, _telling(_hook))


class Saves(Callback):
    """Saves at each boundary; last."""

    after = ("Told",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / "last.pt")


def plainly(reason: str) -> str:
    """Return ``reason`` without the process that gave it."""
    return re.sub(r" \(rank \d\)", "", reason)


def left(
    hook: str, number: int, at: int, ranks: list[int], folder: Path, times: int = 1
) -> dict[str, Any]:
    """Train; return how the run was left, and what was saved."""
    told = Told(hook, number, at, ranks, times)
    trainer = make_trainer(
        *(Regression(), regression_batches(4), told, Saves(folder)),
        plugins=[{"distributed": {}}],
        num_epochs=2,
    )
    code: Any = 0
    try:
        trainer.train()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 130
    made = [(r.kind, r.owner, plainly(r.reason), r.step) for r in trainer.requests]
    at_end = trainer.epoch, trainer.step, trainer.stop_owner
    return {"code": code, "saved": told.saved, "made": made, "at_end": at_end}


def left_everywhere(
    hooks: list[str], number: int, at: int, ranks: list[int], folder: Path
) -> dict[str, Any]:
    """Return what ``left`` returns for each hook."""
    early = ("on_setup", "on_train_begin")
    return {
        hook: left(hook, number, 0 if hook in early else at, ranks, folder)
        for hook in hooks
    }


@pytest.mark.parametrize(
    "ranks",
    [
        pytest.param([0], id="the first"),
        pytest.param([1], id="the last"),
        pytest.param([0, 1], id="all"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_d19_a_signal_to_one_rank_is_one_to_the_run(
    two: Ranks, tmp_path: Path, number: signal.Signals, ranks: list[int]
) -> None:
    alone = left_everywhere(HOOKS, number, 2, [0], tmp_path)
    codes = {hook: CODES.get(number, 0) for hook in HOOKS}
    assert {hook: each["code"] for hook, each in alone.items()} == codes
    first, last = two.run(left_everywhere, HOOKS, number, 2, ranks, tmp_path)
    for hook in HOOKS:
        assert first[hook] == last[hook], hook
        assert first[hook] == alone[hook], hook


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_d19_each_signal_has_its_exit_code_on_all(
    two: Ranks, tmp_path: Path, number: signal.Signals
) -> None:
    alone = left("on_batch_begin", number, 2, [0], tmp_path)
    assert alone["code"] == CODES[number]
    assert two.run(left, "on_batch_begin", number, 2, [1], tmp_path) == [alone, alone]


class Validates(Callback):
    """Measures batch by batch; one process is told a signal at one of them.

    Args:
        rank: of that process; None: nobody is told.
        how: the method that is called between batches.
        number: of batches.
    """

    def __init__(self, rank: int | None, how: str, number: int) -> None:
        self.rank, self.how, self.number = rank, how, number
        self.read = 0

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        for batch in range(self.number):
            if batch == 2 and trainer.rank == self.rank:
                os.kill(os.getpid(), signal.SIGTERM)
            getattr(trainer, self.how)()
            self.read += 1
        return {"val_loss": 1.0}


def evaluated(
    rank: int | None, how: str, numbers: Mapping[int, int], folder: Path, goes_on: bool
) -> Any:
    """Train, or go on; return the code, batches read, (epoch, step, batch), history."""
    file = folder / "last.pt"
    trainer = make_trainer(
        *(Regression(), regression_batches(4)),
        *(validates := Validates(rank, how, 5), Saves(folder)),
        plugins=[{"distributed": {}}],
    )
    validates.number = numbers[trainer.rank]
    if goes_on:
        trainer.load_checkpoint(file)
    code: Any = 0
    try:
        trainer.train()
    except SystemExit as error:
        code = error.code
    at = trainer.epoch, trainer.step, trainer.batches_seen
    return code, validates.read, at, len(trainer.history)


@pytest.mark.parametrize("rank", [0, 1])
def test_d20_an_evaluation_is_abandoned_by_all_at_the_same_batch(
    two: Ranks, tmp_path: Path, rank: int
) -> None:
    numbers = {0: 5, 1: 5}
    told = two.run(evaluated, rank, "abandon_together", numbers, tmp_path, False)
    assert told == [(143, 2, (0, 4, 4), 0)] * 2
    told = two.run(evaluated, None, "abandon_together", numbers, tmp_path, True)
    assert told == [(0, 5, (1, 4, 0), 1)] * 2, "it is made first when the run goes on"


@pytest.mark.parametrize("rank", [0, 1])
def test_d20_an_evaluation_that_is_not_divided_is_finished(
    two: Ranks, tmp_path: Path, rank: int
) -> None:
    numbers = {0: 3, 1: 5}  # of nobody's parts: each may read what it likes
    told = two.run(evaluated, rank, "abandon_if_leaving", numbers, tmp_path, False)
    assert told == [(143, 3, (1, 4, 0), 1), (143, 5, (1, 4, 0), 1)]


@pytest.mark.parametrize("hook", ["on_batch_begin", "state_dict"])
def test_d19_what_a_launcher_passes_on_is_not_a_second_signal(
    two: Ranks, tmp_path: Path, hook: str
) -> None:
    once = left(hook, signal.SIGTERM, 2, [0], tmp_path)
    assert two.run(left, hook, signal.SIGTERM, 2, [0, 1], tmp_path, 2) == [once, once]


def test_d19_alone_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    once, twice = (
        left("on_batch_begin", signal.SIGTERM, 2, [0], tmp_path, times)
        for times in (1, 2)
    )
    assert once["code"] == twice["code"] == 143
    assert once["saved"]
    assert not twice["saved"]


def heard(*numbers: signal.Signals) -> list[int]:
    """Return the signals that stop a run, of those that a process is told."""
    found: list[int] = []
    with handled(found.append, None, has_launcher=True):
        for number in numbers:
            signal.raise_signal(number)
    return found


def test_d19_what_is_told_twice_under_a_launcher_is_one_signal() -> None:
    assert heard(signal.SIGTERM, signal.SIGTERM) == [signal.SIGTERM]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGTERM] * 3, id="a third"),
        pytest.param([signal.SIGINT, signal.SIGTERM], id="another one"),
    ],
)
def test_d19_who_insists_under_a_launcher_leaves_at_once(
    numbers: list[signal.Signals],
) -> None:
    with pytest.raises(SystemExit):
        heard(*numbers)


def insisted(folder: Path, *told: tuple[Any, ...]) -> list[Any]:
    """Train until a process leaves at once; return its code, and who ended the run."""
    saving = {"checkpointing": {"monitor": None, "every_n_steps": 4}}
    callbacks = [Told(*each) for each in told]
    for callback in callbacks:
        callback.name = f"told_{callback.hook}"
    trainer = make_trainer(
        *(Regression(), regression_batches(6), *callbacks),
        plugins=[{"distributed": {}}, saving],
        save_dir=folder,
    )
    with pytest.raises((SystemExit, KeyboardInterrupt, TrainbusError)) as left:
        trainer.train()
    code: int = left.value.exit_code  # type: ignore[union-attr]
    return [code, trainer.stop_owner, plainly(str(trainer.stop_reason))]


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("number", "told", "saved_at"),
    [
        pytest.param(TERM, [("on_step_end", TERM, 5, [0, 1], 3)], 4, id="all"),
        pytest.param(TERM, [("on_step_end", TERM, 5, [1], 3)], 4, id="one"),
        pytest.param(INT, [("on_step_end", INT, 2, [1], 3)], None, id="none saved"),
        pytest.param(
            TERM,
            [("on_step_end", TERM, 5, [1], 1), ("on_checkpoint", TERM, 5, [1], 2)],
            5,
            id="one, as all leave",
        ),
    ],
)
def test_d37_a_run_that_leaves_at_once_says_that_a_signal_has_ended_it(
    two: Ranks, tmp_path: Path, number: signal.Signals, told: Any, saved_at: int | None
) -> None:
    answers = two.run(insisted, tmp_path, *told)
    two.close()  # they have parted
    assert answers == [[CODES[number], "signal", f"{number.name} received"]] * 2
    content = json.loads((tmp_path / "RESUMABLE").read_text())
    file = content.pop("file")
    assert content == {"signal": number.name, "step": saved_at or 2}
    assert (file is None) == (saved_at is None)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy import Regression, make_trainer, regression_batches
from training import Callback

class Tells(Callback):
    def on_batch_begin(self, trainer):
        if trainer.step == 2 and trainer.rank == 1:
            os.kill(os.getpid(), {number})

class Saves(Callback):
    def on_checkpoint(self, trainer):
        trainer.save_checkpoint({folder!r} + "/last.pt")

trainer = make_trainer(
    Regression(), regression_batches(6), Tells(), Saves(), plugins=["distributed"]
)
try:
    trainer.train()
except BaseException as error:
    code = 130 if isinstance(error, KeyboardInterrupt) else error.code
    Path({folder!r}, str(trainer.rank)).write_text(f"{{code}} at {{trainer.step}}")
    raise
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_d19_processes_end_with_the_code_of_the_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "train.py"
    tests = str(Path(__file__).parents[2])
    script.write_text(
        SCRIPT.format(tests=tests, number=int(number), folder=str(tmp_path))
    )
    ended = subprocess.run(
        torchrun(2, str(script)), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1, "as torchrun has it"
    told = [(tmp_path / rank).read_text() for rank in ("0", "1")]
    assert told == [f"{CODES[number]} at 3"] * 2
    assert re.search(rf"exitcode\s*: (-2|{CODES[number]})", ended.stderr), ended.stderr
    assert (tmp_path / "last.pt").exists()
