"""Whose state a checkpoint holds: a plugin's own of now, or one of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import make_trainer

from training import Callback, CheckpointError, PluginError, Trainer
from training.checkpoint.plugin_states import MISSING, require_version
from training.checkpoint_io import read_checkpoint, write_checkpoint


class Warms(Callback):
    """Has a state for two steps only; it can take itself out then."""

    def __init__(self, leaves: bool = False) -> None:
        self.leaves = leaves
        self.taken: list[int] = []

    def on_setup(self) -> None:
        self.steps = 0

    def on_step_end(self, trainer: Trainer) -> None:
        self.steps += 1
        if self.leaves and self.steps == 2:
            trainer.bus.unregister("Warms")

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.steps < 2 else {}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]
        self.taken.append(self.steps)


class Saves(Callback):
    """Saves after each step, also the last one, into a folder."""

    after = ("Warms",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_checkpoint("each step")

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.step}.pt")


class Named(Callback):
    """Has no state."""


def resumed(path: Path | None, *plugins: Callback, **options: Any) -> Trainer:
    """Return a trainer that has gone on from ``path``."""
    trainer = make_trainer(None, None, *plugins, **options)
    if path is not None:
        trainer.load_checkpoint(path)
    trainer.train()
    return trainer


def test_a_state_that_has_become_empty_is_saved_so_and_no_older_one(
    tmp_path: Path,
) -> None:
    resumed(None, Warms(), Saves(tmp_path))
    assert read_checkpoint(tmp_path / "1.pt")["plugins"] == {"Warms": {"steps": 1}}
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    resumed(tmp_path / "1.pt", Warms(), Saves(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    again = Warms()
    resumed(tmp_path / "3.pt", again)
    assert again.taken == []


def test_a_plugin_that_has_left_its_run_leaves_no_older_state(tmp_path: Path) -> None:
    resumed(None, Warms(leaves=True), Saves(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    resumed(tmp_path / "1.pt", Warms(leaves=True), Saves(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}


def test_a_plugin_that_was_away_is_said_to_go_on_with_an_earlier_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(None, Warms(), Saves(tmp_path))
    resumed(tmp_path / "1.pt", Saves(tmp_path))
    assert "Warms" not in caplog.text
    trainer = make_trainer(None, None, back := Warms(), Saves(tmp_path), Named())
    receipt = trainer.load_checkpoint(tmp_path / "3.pt")
    assert receipt is not None
    assert (receipt.returned, receipt.added) == (("Warms",), ("Named",))
    told = "plugin Warms was away and goes on with its state from an earlier checkpoint"
    assert told in str(receipt)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"][-1] == told
    trainer.train()
    assert back.taken == [1]


def test_one_whose_state_was_lost_is_new_and_starts_afresh(tmp_path: Path) -> None:
    resumed(None, Warms(), Saves(tmp_path))
    state = read_checkpoint(tmp_path / "1.pt")
    state["plugins"]["Warms"] = {MISSING: "it failed"}
    del state["distributions"]["Warms"]
    trainer = make_trainer(None, None, Warms())
    receipt = trainer.load_checkpoint(write_checkpoint(tmp_path / "lost.pt", state))
    assert receipt is not None
    assert (receipt.returned, receipt.added) == ((), ("Warms",))


class Best(Callback):
    """Keeps a number of numpy, from when it is asked to on."""

    name = "best"

    def __init__(self, begins: str = "at once") -> None:
        self.begins = begins
        if begins == "at once":
            self.value = np.float32("inf")

    def on_train_begin(self) -> None:
        self.value = np.float32(1)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("nothing was saved")


def test_a_state_that_no_checkpoint_can_hold_is_told_before_the_first_step(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(None, None, Best(), Saves(tmp_path))
    with pytest.raises(PluginError, match=r"'best' .* value is numpy\.float32"):
        trainer.train()
    assert trainer.step == 0


def test_a_state_that_is_not_there_before_training_is_told_of_at_a_save(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(None, None, Best("in training"), Saves(tmp_path))
    with pytest.raises(PluginError, match=r"'best' .* value is numpy\.float32"):
        trainer.train()
    assert trainer.step == 1


def test_a_state_that_nobody_saves_may_be_anything() -> None:
    assert resumed(None, Best()).step == 4


def test_until_a_run_goes_on_what_was_loaded_is_saved_again(tmp_path: Path) -> None:
    resumed(None, Warms(), Saves(tmp_path))
    waits = make_trainer(None, None, Warms())
    waits.load_checkpoint(tmp_path / "1.pt")
    path = waits.save_checkpoint(tmp_path / "again.pt")
    assert read_checkpoint(path)["plugins"] == {"Warms": {"steps": 1}}


@pytest.mark.parametrize(
    "state", [{}, {"version": 2}, {"version": "1"}, {"version": True}]
)
def test_a_state_of_another_version_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="the state of mine has version"):
        require_version("mine", state, 1)
    require_version("mine", {"version": 1}, 1)
