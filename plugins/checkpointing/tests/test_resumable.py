"""A run that a signal ended says so in a file, which the next run takes away."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from training import Callback, CheckpointError, Trainer


class Signals(Callback):
    """Tells the process to end, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def make(
    folder: Path, step: int, before: Callback | None = None, **options: object
) -> Trainer:
    model = nn.Linear(1, 1)
    return Trainer(
        model,
        [torch.ones(1, 1)] * 4,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch).square().mean(),
        callbacks=[Signals(step), *filter(None, [before])],
        plugins=[{"checkpointing": {"monitor": None, **options}}],
        num_epochs=2,
        save_dir=folder,
        device="cpu",
    )


@pytest.mark.parametrize("step", [3, 4], ids=["inside an epoch", "at its end"])
@pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in a thread"])
def test_it_names_step_file_and_signal(
    tmp_path: Path, step: int, is_async: bool
) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path, step, async_save=is_async).train()
    content = json.loads((tmp_path / "RESUMABLE").read_text())
    assert content.keys() == {"signal", "step", "file"}
    assert (content["signal"], content["step"]) == ("SIGTERM", step)
    state = torch.load(content["file"], weights_only=True)
    assert state["progress"]["step"] == step


def test_the_next_run_takes_it_away_and_one_that_ends_leaves_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "RESUMABLE").write_text("of an earlier run")
    make(tmp_path, 99).train()
    assert not (tmp_path / "RESUMABLE").exists()


def test_a_resumed_run_with_nothing_left_to_train_takes_it_away(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path, 8).train()
    assert (tmp_path / "RESUMABLE").exists()
    resumed = make(tmp_path, 99)
    resumed.train(resume="auto")
    assert resumed.step == 8
    assert not (tmp_path / "RESUMABLE").exists()


class RefusesState(Callback):
    """Refuses the state that it had saved, as a schedule does another one's."""

    after = ("checkpointing",)

    def state_dict(self) -> dict[str, int]:
        return {"total": 8}

    def load_state_dict(self, state: object) -> None:
        raise CheckpointError("total is 4 now but 8 in the checkpoint")


class RefusesToBegin(Callback):
    """Refuses to go on, as who watches a metric does where nobody measures it."""

    after = ("checkpointing",)

    def on_train_begin(self, resumed: bool) -> None:
        if resumed:
            raise CheckpointError("nothing measures 'total'")


@pytest.mark.parametrize("refuses", [RefusesState, RefusesToBegin])
def test_a_resume_that_is_refused_leaves_it(
    tmp_path: Path, refuses: type[Callback]
) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path, 3, before=refuses()).train()
    whole = (tmp_path / "RESUMABLE").read_bytes()
    with pytest.raises(CheckpointError, match="total"):
        make(tmp_path, 99, before=refuses()).train(resume="auto")
    assert (tmp_path / "RESUMABLE").read_bytes() == whole


class SignalsBefore(Callback):
    """Tells the process to end, before the first step."""

    def on_train_begin(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_before_the_first_checkpoint_it_says_that_the_same_command_starts_again(
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path, 99, before=SignalsBefore()).train()
    content = json.loads((tmp_path / "RESUMABLE").read_text())
    assert content == {"signal": "SIGTERM", "step": 0, "file": None}


def test_before_a_checkpoint_of_its_own_a_resumed_run_goes_on_where_it_had(
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit):
        make(tmp_path / "a", 3).train()
    (source,) = (tmp_path / "a" / "checkpoints").glob("*.pt")
    trainer = make(tmp_path / "b", 99, before=SignalsBefore())
    with pytest.raises(SystemExit):
        trainer.train(resume=source)
    content = json.loads((tmp_path / "b" / "RESUMABLE").read_text())
    assert content == {"signal": "SIGTERM", "step": 3, "file": str(source)}


def test_a_mistake_before_any_checkpoint_is_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("before any checkpoint")

    trainer = make(tmp_path, 99)
    monkeypatch.setattr(trainer.optimizer, "step", refused)
    with pytest.raises(RuntimeError, match="before any checkpoint"):
        trainer.train()
    assert not (tmp_path / "RESUMABLE").exists()
