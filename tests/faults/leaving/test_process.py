"""P1-P4: signals at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.runs import assert_same_end, build, end_of, loader_of
from faults.sweep import violations

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, Trainer

Record = Callable[[str, object], None]

#: Where in a step a signal can come.
MOMENTS = ("loading", "forward", "backward", "plugin", "evaluation", "saving")


class Signals(Callback):
    """Sends a signal to this process at one moment of one step."""

    def __init__(self, step: int, moment: str, *numbers: signal.Signals) -> None:
        self.step, self.moment, self.numbers = step, moment, list(numbers)

    def at(self, step: int, moment: str) -> None:
        if (step, moment) == (self.step, self.moment):
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def on_setup(self, trainer: Trainer) -> None:
        trainer.model.layers[0].register_forward_hook(
            lambda *_: self.at(trainer.step, "forward")
        )
        next(trainer.model.parameters()).register_hook(
            lambda gradient: self.at(trainer.step, "backward")
        )
        dataset: Any = trainer.train_dataloader.dataset  # type: ignore[attr-defined]
        dataset.on_load = lambda: self.at(trainer.step, "loading")

    def on_batch_end(self, trainer: Trainer) -> None:
        self.at(trainer.step, "plugin")

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        self.at(trainer.step, "evaluation")
        return {"val_loss": 1.0 / trainer.step}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


class Loads(Callback):
    """Saves on every request; lets the signal come in the middle of it."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_evaluation("test")
        trainer.request_checkpoint("test")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


class Interrupts(ModelCheckpointCallback):
    """The shipped plugin, with a signal between the file and its entry."""

    signals: Signals

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        self.signals.at(trainer.step, "saving")
        super().on_checkpoint(trainer, reason)


def signalled(
    folder: Path, step: int, moment: str, *numbers: Any, **options: Any
) -> Trainer:
    """Return a trainer that gets ``numbers`` at one moment."""
    signals = Signals(step, moment, *numbers)
    checkpoints = Interrupts(folder, save_top_k=2, **options)
    checkpoints.signals = signals
    loader = loader_of(batch_size=2)
    dataset, real = loader.dataset, type(loader.dataset).__getitem__
    dataset.on_load = lambda: None

    class Tells(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            self.on_load()
            return real(self, index)

    dataset.__class__ = Tells
    return build(signals, Loads(signals), checkpoints, loader=loader)


def last_of(trainer: Trainer) -> Path:
    """Return the newest checkpoint that a resume would take."""
    plugin = trainer.plugins["checkpointing"]
    return next(
        p for p, problem in plugin.resume_candidates(trainer) if problem is None
    )


def test_p1_sigterm_at_any_moment_saves_within_a_step_exits_143_and_resumes_equal(
    tmp_path: Path, record_property: Record
) -> None:
    whole = signalled(tmp_path / "whole", -1, "none")
    whole.train()
    expected = end_of(whole)
    chance = random.Random(1)
    moments = [(chance.randrange(1, 11), MOMENTS[n % len(MOMENTS)]) for n in range(20)]
    for number, (step, moment) in enumerate(moments):
        folder = tmp_path / str(number)
        trainer = signalled(folder, step, moment, signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            trainer.train()
        assert caught.value.code == 143
        assert step <= trainer.step <= step + 1, (step, moment)
        rest = signalled(folder, -1, "none")
        rest.load_checkpoint(last_of(rest))
        assert rest.step == trainer.step, (step, moment)
        rest.train()
        assert_same_end(end_of(rest), expected, f"SIGTERM in {moment} of step {step}")
    record_property("moments", len(moments))


@pytest.mark.parametrize("epoch", [1, 2])
def test_p1_sigterm_in_the_last_step_of_an_epoch_does_not_wait_for_its_evaluation(
    tmp_path: Path, epoch: int
) -> None:
    class Evaluates(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            self.steps.append(trainer.step)
            return {"val_loss": 1.0 / trainer.step}

    class Signalled(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 6 * epoch:
                signal.raise_signal(signal.SIGTERM)

    def trainer_of(*callbacks: Any) -> Trainer:
        return build(Evaluates(), ModelCheckpointCallback(tmp_path), *callbacks)

    whole = build(Evaluates())
    whole.train()
    trainer = trainer_of(Signalled())
    with pytest.raises(SystemExit, match="143"):
        trainer.train()
    rest = trainer_of()
    rest.load_checkpoint(last_of(rest))
    rest.train()
    assert (trainer.epoch, trainer.step) == (epoch - 1, 6 * epoch)
    assert rest.history[-1]["step"] == 12
    first = [p for p in trainer.plugins.values() if isinstance(p, Evaluates)]
    assert first[0].steps == [6] * (epoch - 1)
    assert_same_end(end_of(rest), end_of(whole), "an epoch's end")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        pytest.param((signal.SIGTERM, signal.SIGTERM), SystemExit, id="SIGTERM"),
        pytest.param((signal.SIGINT, signal.SIGINT), KeyboardInterrupt, id="SIGINT"),
    ],
)
def test_p1_p2_a_second_signal_leaves_now_and_the_last_checkpoint_is_valid(
    tmp_path: Path, moment: str, numbers: Any, error: type[BaseException]
) -> None:
    trainer = signalled(tmp_path, 3, moment, *numbers)
    with pytest.raises(error):
        trainer.train()
    assert trainer.step == 3
    assert violations(tmp_path, 2) == []


def test_p2_sigint_once_saves_and_interrupts(tmp_path: Path) -> None:
    trainer = signalled(tmp_path, 3, "forward", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    rest = signalled(tmp_path, -1, "none")
    rest.load_checkpoint(last_of(rest))
    assert rest.step == 4


def test_p3_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    signals = Signals(4, "forward", signal.SIGUSR1)
    plugin = ModelCheckpointCallback(tmp_path, monitor=None)
    loader = loader_of()
    saved: list[int] = []

    class Notes(Callback):
        after = ("checkpointing",)

        def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
            if "SIGUSR1" in reason:
                saved.append(trainer.step)

    trainer = build(signals, plugin, Notes(), loader=loader)
    trainer.train()
    assert saved == [5]
    assert trainer.epoch == 2


def test_p3_sigusr1_stops_where_that_is_configured(tmp_path: Path) -> None:
    trainer = signalled(tmp_path, 3, "forward", signal.SIGUSR1)
    trainer.stop_on_sigusr1 = True
    with pytest.raises(SystemExit, match=str(128 + signal.SIGUSR1)):
        trainer.train()
    rest = signalled(tmp_path, -1, "none")
    rest.load_checkpoint(last_of(rest))
    assert (rest.step, trainer.stop_owner) == (4, "signal")


SLOW_SAVE = """
import os, sys, time
from pathlib import Path
from faults.sweep import build
from training import checkpoint_io
trainer = build(Path(sys.argv[1]), lambda step: print(step, flush=True))
real = checkpoint_io.torch.save
saves = []
def save(content, file):
    saves.append(1)
    if len(saves) == 3:
        file.write(b"half of it")
        file.flush()
        print("saving", flush=True)
        time.sleep(60)
    real(content, file)
checkpoint_io.torch.save = save
trainer.train()
"""


def test_p4_killed_in_a_save_200_ms_after_sigterm_the_previous_one_is_valid(
    tmp_path: Path,
) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SAVE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    told = [line.strip() for line in iter(lambda: next(lines), "saving\n")]
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)  # the save goes on; the scheduler's grace is over
    process.kill()
    process.communicate()
    assert told == ["2", "4"]
    assert violations(tmp_path, 4) == []
