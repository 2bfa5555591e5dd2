"""Whose state a checkpoint holds: a plugin's own of now, or one of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toy import make_trainer

from training import Callback, Trainer
from training.checkpoint_io import read_checkpoint


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


def test_until_a_run_goes_on_what_was_loaded_is_saved_again(tmp_path: Path) -> None:
    resumed(None, Warms(), Saves(tmp_path))
    waits = make_trainer(None, None, Warms())
    waits.load_checkpoint(tmp_path / "1.pt")
    path = waits.save_checkpoint(tmp_path / "again.pt")
    assert read_checkpoint(path)["plugins"] == {"Warms": {"steps": 1}}
