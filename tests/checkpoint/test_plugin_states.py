"""Whose state a checkpoint holds: a plugin's own of now, or one of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import Saves, make_trainer

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


class SavesLast(Saves):
    """Saves after each step, also the last one, into a folder."""

    after = ("Warms",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "{step}.pt", each_step=True)


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
    resumed(None, Warms(), SavesLast(tmp_path))
    assert read_checkpoint(tmp_path / "1.pt")["plugins"] == {"Warms": {"steps": 1}}
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    resumed(tmp_path / "1.pt", Warms(), SavesLast(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    again = Warms()
    resumed(tmp_path / "3.pt", again)
    assert again.taken == []


def test_a_plugin_that_has_left_its_run_leaves_no_older_state(tmp_path: Path) -> None:
    resumed(None, Warms(leaves=True), SavesLast(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}
    resumed(tmp_path / "1.pt", Warms(leaves=True), SavesLast(tmp_path))
    assert read_checkpoint(tmp_path / "3.pt")["plugins"] == {}


def test_a_plugin_that_was_away_is_said_to_go_on_with_an_earlier_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(None, Warms(), SavesLast(tmp_path))
    resumed(tmp_path / "1.pt", SavesLast(tmp_path))
    assert "Warms" not in caplog.text
    trainer = make_trainer(None, None, back := Warms(), SavesLast(tmp_path), Named())
    receipt = trainer.load_checkpoint(tmp_path / "3.pt")
    assert receipt is not None
    assert (receipt.returned, receipt.added) == (("Warms",), ("Named",))
    told = "plugin Warms was away and goes on with its state from an earlier checkpoint"
    assert told in str(receipt)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"][-1] == told
    trainer.train()
    assert back.taken == [1]


def test_one_whose_state_was_lost_is_new_and_starts_afresh(tmp_path: Path) -> None:
    resumed(None, Warms(), SavesLast(tmp_path))
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
    trainer = make_trainer(None, None, Best(), SavesLast(tmp_path))
    with pytest.raises(PluginError, match=r"'best' .* value is numpy\.float32"):
        trainer.train()
    assert trainer.step == 0


def test_a_state_that_is_not_there_before_training_is_told_of_at_a_save(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(None, None, Best("in training"), SavesLast(tmp_path))
    with pytest.raises(PluginError, match=r"'best' .* value is numpy\.float32"):
        trainer.train()
    assert trainer.step == 1


def test_a_state_that_nobody_saves_may_be_anything() -> None:
    assert resumed(None, Best()).step == 4


def test_until_a_run_goes_on_what_was_loaded_is_saved_again(tmp_path: Path) -> None:
    resumed(None, Warms(), SavesLast(tmp_path))
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


class Counts(Callback):
    """Counts steps in isolation, and may fail in one hook."""

    name, failure = "counts", "isolate"
    steps = 0

    def __init__(self, hook: str = "") -> None:
        if hook:
            setattr(self, hook, self._fail)

    def _fail(self) -> None:
        raise OSError("full")

    def on_step_end(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


@pytest.mark.parametrize(
    ("hook", "path"), [("on_before_step", "4.pt"), ("on_setup", "1.pt")]
)
def test_a_checkpoint_without_the_state_of_one_switched_off_says_so_when_read(
    hook: str, path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(None, Counts(hook), SavesLast(tmp_path))
    resumed(tmp_path / path, again := Counts(), num_epochs=3)
    why = f"switched off as {hook} raised OSError('full')"
    assert f"the checkpoint has no state of plugin 'counts': {why}" in caplog.text
    assert again.steps == 12 - int(path[0])


def test_one_switched_off_before_it_has_its_state_leaves_that_in_checkpoints(
    tmp_path: Path,
) -> None:
    resumed(None, Counts(), SavesLast(tmp_path))
    resumed(tmp_path / "3.pt", Counts("on_setup"), SavesLast(tmp_path / "later"))
    state = read_checkpoint(tmp_path / "later" / "4.pt")
    assert state["plugins"] == {"counts": {"steps": 3}}


class Hires(Callback):
    """Registers another plugin in one hook, once a run."""

    name = "a"

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._hire)

    def _hire(self, trainer: Trainer) -> None:
        if "counts" not in trainer.plugins:
            self.hired = Counts()
            trainer.bus.register(self.hired)


@pytest.mark.parametrize(
    "hook", ["wrap_model", "on_setup", "on_train_begin", "on_epoch_begin"]
)
def test_one_that_another_registers_has_its_state_in_a_resumed_run_too(
    hook: str, tmp_path: Path
) -> None:
    resumed(None, Hires(hook), SavesLast(tmp_path), num_epochs=2)
    resumed(tmp_path / "6.pt", hires := Hires(hook), SavesLast(tmp_path), num_epochs=2)
    assert hires.hired.steps == 8
    assert read_checkpoint(tmp_path / "8.pt")["plugins"] == {"counts": {"steps": 8}}


class Kept:
    """Halves what a loader gives."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Any:
        return ((x / 2, y) for x, y in self.loader)


class Halves(Callback):
    """Fails in isolation, and has put a loader of its own in place."""

    name, failure, alters_training = "halves", "isolate", True

    def __init__(self, passes_on: bool = False) -> None:
        self.passes_on = passes_on

    def wrap_dataloader(self, dataloader: Any) -> Any:
        return dataloader if self.passes_on else Kept(dataloader)

    def on_step_end(self) -> None:
        raise OSError("full")


def test_an_isolated_plugin_whose_part_stays_in_the_run_ends_it_in_place_of_leaving(
    tmp_path: Path,
) -> None:
    trainer = make_trainer(None, None, Halves(), SavesLast(tmp_path))
    with pytest.raises(OSError, match="full") as caught:
        trainer.train()
    assert "where what its wrap_dataloader made stays" in str(caught.value.__notes__)
    assert trainer.step == 3
    # What was saved until then lists it: no run goes on from there without it.
    with pytest.raises(CheckpointError, match=r"plugins\.halves was 'active'"):
        make_trainer(None, None).load_checkpoint(tmp_path / "2.pt")


def test_one_that_returned_the_loader_it_was_given_has_nothing_that_stays() -> None:
    trainer = resumed(None, Halves(passes_on=True))
    assert trainer.step == 4
    assert "halves" not in trainer.plugins
