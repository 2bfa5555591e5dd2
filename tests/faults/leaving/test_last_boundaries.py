"""P1: what is due at the last boundary of a run is not lost to a signal there."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faults.runs import assert_same_end, build, end_of
from toy import regression_batches

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from trainbus_evaluation import EvaluationCallback
from training import Callback, Trainer


class Tells(Callback):
    """Sends SIGTERM in one hook, after one step."""

    name = "tells"  # behind checkpointing

    def __init__(self, hook: str = "", step: int = 0) -> None:
        self.at = hook, step

    def _tell(self, trainer: Trainer, hook: str) -> None:
        if (hook, trainer.step) == self.at:
            self.at = "", 0
            signal.raise_signal(signal.SIGTERM)

    def on_batch_end(self, trainer: Trainer) -> None:
        self._tell(trainer, "on_batch_end")

    def evaluate(self, trainer: Trainer) -> None:
        self._tell(trainer, "evaluate")
        trainer.abandon_if_leaving()

    def on_checkpoint(self, trainer: Trainer) -> None:
        self._tell(trainer, "on_checkpoint")


class Asks(Callback):
    """Asks for the end of the run while checkpoints are made."""

    name = "uploads"  # behind checkpointing

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.request_stop("the disk is full")


def trainer_of(folder: Path, *others: Any, every: int | None = None, **options: Any):
    """Return a run of two epochs of six steps, every other one of which is kept."""
    measures = EvaluationCallback(
        every_n_steps=every, every_n_epochs=None if every else 1, sanity_batches=0
    )
    saves = ModelCheckpointCallback(folder, save_top_k=-1, save_frequency=2)
    batches = [(x, y, 0) for x, y in regression_batches(3, 2)]
    return build(saves, measures, *others, val_dataloader=batches, **options)


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pt"))


def goes_on(folder: Path, trainer: Trainer) -> Trainer:
    found = trainer.plugins["checkpointing"].resume_candidates(trainer)
    trainer.load_checkpoint(found[0][0])
    trainer.train()
    return trainer


@pytest.mark.parametrize("steps", [9, 6, 12])
def test_p1_the_evaluation_at_max_steps_is_made_by_the_run_that_goes_on(
    tmp_path: Path, caplog: Any, steps: int
) -> None:
    whole = trainer_of(tmp_path / "whole", max_steps=steps)
    whole.train()
    with pytest.raises(SystemExit, match="143"):
        trainer_of(tmp_path, Tells("evaluate", steps), max_steps=steps).train()
    caplog.clear()
    rest = goes_on(tmp_path, trainer_of(tmp_path, max_steps=steps))
    assert "nothing to train" not in caplog.text
    assert [row["step"] for row in rest.history] == [
        row["step"] for row in whole.history
    ]
    assert "val_loss" in rest.history[-1]
    assert_same_end(end_of(rest), end_of(whole), "the end")


def test_p1_a_signal_in_an_epochs_last_step_leaves_its_evaluation_to_the_rest(
    tmp_path: Path,
) -> None:
    whole = trainer_of(tmp_path / "whole", every=3)
    whole.train()
    with pytest.raises(SystemExit, match="143"):
        trainer_of(tmp_path, Tells("on_batch_end", 5), every=3).train()
    rest = goes_on(tmp_path, trainer_of(tmp_path, every=3))
    assert "val_loss" in rest.history[0]
    assert_same_end(end_of(rest), end_of(whole), "the end")


@pytest.mark.parametrize("hook", ["on_batch_end", "evaluate"])
def test_p1_what_is_due_by_steps_at_max_steps_is_left_to_a_run_with_more(
    tmp_path: Path, hook: str
) -> None:
    whole = trainer_of(tmp_path / "whole", every=3)
    whole.train()
    tells = Tells(hook, 5 if hook == "on_batch_end" else 6)
    with pytest.raises(SystemExit, match="143"):
        trainer_of(tmp_path, tells, every=3, max_steps=6).train()
    rest = goes_on(tmp_path, trainer_of(tmp_path, every=3))
    assert "val_loss" in rest.history[0]
    assert_same_end(end_of(rest), end_of(whole), "the end")


def test_a_run_that_is_behind_its_max_steps_owes_nothing(
    tmp_path: Path, caplog: Any
) -> None:
    with pytest.raises(SystemExit, match="143"):
        trainer_of(tmp_path, Tells("on_batch_end", 8)).train()
    rest = goes_on(tmp_path, trainer_of(tmp_path, max_steps=8))
    assert (rest.step, [row["step"] for row in rest.history]) == (9, [6])
    assert "nothing to train" in caplog.text


@pytest.mark.parametrize("step", [6, 12])
def test_p1_a_signal_while_a_checkpoint_that_is_not_due_is_announced_is_saved_for(
    tmp_path: Path, step: int
) -> None:
    tells = Tells("on_checkpoint", step)
    saves = ModelCheckpointCallback(tmp_path, monitor=None, save_frequency=4)
    with pytest.raises(SystemExit, match="143"):
        build(saves, tells, num_epochs=3).train()
    assert saved(tmp_path) == [f"last-epoch{step // 6:03}-step{step}.pt"]


def test_a_stop_while_a_checkpoint_that_is_not_due_is_announced_is_saved_for(
    tmp_path: Path,
) -> None:
    saves = ModelCheckpointCallback(tmp_path, monitor=None, save_frequency=4)
    trainer = build(saves, Asks(), num_epochs=3)
    trainer.train()
    assert trainer.step == 6
    assert saved(tmp_path) == ["last-epoch001-step6.pt"]


class Nests(Callback):
    """Makes a run in a hook, which is told, and goes on after it or not."""

    def __init__(self, hook: str, folder: Path, goes_on: bool) -> None:
        def nests(trainer: Trainer) -> None:
            saves = ModelCheckpointCallback(folder / "inner", monitor=None)
            with suppress(SystemExit if goes_on else ()):
                build(saves, Tells("on_batch_end", 1)).train()

        setattr(self, hook, nests)


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "does not"])
@pytest.mark.parametrize(
    "hook", ["on_epoch_begin", "on_step_end", "on_metrics", "on_epoch_end"]
)
def test_p1_of_a_run_in_a_hook_the_outer_one_saves_if_the_hook_goes_on(
    tmp_path: Path, hook: str, goes_on: bool
) -> None:
    saves = ModelCheckpointCallback(tmp_path, monitor=None)
    outer = build(saves, Nests(hook, tmp_path, goes_on))
    with pytest.raises(SystemExit, match="143"):
        outer.train()
    assert saved(tmp_path / "inner") == ["last-epoch000-step2.pt"]
    assert [name.split("-")[0] for name in saved(tmp_path)] == ["last"] * goes_on


def test_a_run_that_is_over_has_its_best_weights_whenever_it_is_loaded(
    tmp_path: Path,
) -> None:
    def ended() -> Trainer:
        early = EarlyStoppingCallback(restore_best_weights=True)
        return trainer_of(tmp_path, early, max_steps=7, dropout=0.0)

    first = ended()
    first.train()
    assert first.weights_are == "best@7", "or it is no control"
    again = goes_on(tmp_path, ended())
    assert again.weights_are == "best@7"
    assert_same_end(again.model.state_dict(), first.model.state_dict(), "the weights")
