"""The best weights come back at the end, from a copy or a checkpoint."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from trainbus_early_stopping import EarlyStoppingCallback
from training import Callback, PluginError
from training.plugin import read_checkpoint, write_checkpoint

from .fakes import FakeTrainer, begun, resumed

NAN = float("nan")


def weight_of(trainer: Any) -> float:
    return trainer.model.weight.item()


def run(stopper: Any, trainer: Any, *values: float) -> tuple[float, str]:
    """Run an epoch for each value; return the weight of then, and what it is called."""
    for value in values:
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    return weight_of(trainer), trainer.weights_are


def test_best_weights_come_back_from_a_copy_that_training_cannot_change():
    ended = run(*begun(restore_best_weights=True), 1.0, 0.5, 0.7)
    assert ended == (4, "best@4")


def test_best_means_best_seen_also_when_the_gain_was_below_min_delta():
    stopper, trainer = begun(restore_best_weights=True, min_delta=0.5, patience=9)
    assert run(stopper, trainer, 1.0, 0.9, 0.95) == (4, "best@4")
    assert stopper.best_value == 0.9


@pytest.mark.parametrize(
    ("is_asked", "values", "called"),
    [
        pytest.param(True, (1.0, 0.5), "best@4", id="the best, and are called so"),
        pytest.param(False, (1.0, 2.0), "live", id="what nobody asked to replace"),
        pytest.param(True, (NAN, NAN), "live", id="all that there is: nothing finite"),
    ],
)
def test_live_weights_stay_that_are(is_asked, values, called):
    assert run(*begun(restore_best_weights=is_asked), *values) == (4, called)


class Files(Callback):
    """Offers checkpoints as the checkpointing plugin does."""

    hook_api = ">=1.1,<2"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_checkpoint(self, step: int) -> Path | None:
        path = self.folder / f"{step}.pt"
        return path if path.exists() else None


def saved(
    folder: Path, step: int, weight: float, best_seen: float, of: int | None = None
) -> Path:
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, weight)
    own = {"progress": {"best_seen": best_seen}}
    plugins = {"early_stopping": own}
    state = {
        "model": model.state_dict(),
        "plugins": plugins,
        "progress": {"epoch": step // 2, "step": step if of is None else of},
    }
    return write_checkpoint(folder / f"{step}.pt", state)


def flip_a_bit(path: Path) -> None:
    """Change the stored weight 40.0 by one bit, as a failing disk would."""
    content = path.read_bytes()
    assert content.count(struct.pack("<f", 40)) == 1
    path.write_bytes(content.replace(struct.pack("<f", 40), b"\1\0\x20\x42"))


def replace(path: Path) -> None:
    """Put the checkpoint of another run into its place."""
    saved(path.parent, 4, 40.0, 0.6)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(None, (40.0, "best@4"), id="from the checkpoint of that step"),
        pytest.param(replace, (6.0, "live"), id="not from another run's checkpoint"),
        pytest.param(flip_a_bit, (6.0, "live"), id="not from a damaged one"),
        pytest.param(Path.unlink, (6.0, "live"), id="not from one that is gone"),
    ],
)
def test_best_weights_come_back(tmp_path, caplog, damage, expected):
    stopper, trainer = begun(FakeTrainer(Files(tmp_path)), restore_best_weights=True)
    path = saved(tmp_path, 4, 40.0, 0.5)  # 40 tells it from the copy
    for value in (1.0, 0.5, 0.7):
        trainer.run_epoch(stopper, val_loss=value)
    assert stopper._weights.copy is None  # a complete checkpoint replaces it
    assert "weights" not in stopper.state_dict()
    if damage is not None:
        damage(path)
    stopper.on_train_end(trainer)
    assert (weight_of(trainer), trainer.weights_are) == expected
    assert ("live weights stay" in caplog.text) == (expected[1] == "live")


@pytest.mark.parametrize(
    ("best_seen", "of"),
    [
        pytest.param(0.5, 6, id="of another step"),
        pytest.param(0.6, None, id="of another run"),
        pytest.param(1.0, None, id="from before the check"),
    ],
)
def test_no_copy_is_given_up_for_a_checkpoint(tmp_path, best_seen, of):
    stopper, trainer = begun(FakeTrainer(Files(tmp_path)), restore_best_weights=True)
    saved(tmp_path, 4, 40.0, best_seen, of=of)
    assert run(stopper, trainer, 1.0, 0.5, 0.7) == (4.0, "best@4"), "the copy"


class Odd(Callback):
    hook_api = ">=1.1,<2"
    name = "odd"

    def find_checkpoint(self) -> int:
        return 5


def test_an_answer_that_is_no_path_is_refused_by_name():
    stopper, trainer = begun(FakeTrainer(Odd()), restore_best_weights=True)
    trainer.step = 2
    stopper.on_metrics(trainer, {"val_loss": 1.0})
    with pytest.raises(PluginError, match="plugin 'odd' returned 5"):
        stopper.on_checkpoint(trainer)


def test_the_checkpoint_of_the_best_step_is_declared_as_needed():
    stopper, trainer = begun(restore_best_weights=True)
    assert stopper.needed_checkpoints() == frozenset()
    trainer.run_epoch(stopper, val_loss=1.0)
    trainer.run_epoch(stopper, val_loss=2.0)
    assert stopper.needed_checkpoints() == {2}
    assert EarlyStoppingCallback().needed_checkpoints() == frozenset()


def test_resuming_at_the_best_step_takes_the_copy_again():
    first, before = begun(restore_best_weights=True)
    before.run_epoch(first, val_loss=1.0)
    second, after = resumed(first.state_dict(), 1, restore_best_weights=True)
    after.run_epoch(second, val_loss=2.0)
    second.on_train_end(after)
    assert (weight_of(after), after.weights_are) == (2, "best@2")


@pytest.mark.parametrize("persist", ["path", "weights"])
def test_best_weights_that_no_file_holds_outlive_a_resume(tmp_path, persist):
    options = {"restore_best_weights": True, "persist_best": persist}
    first, before = begun(**options)
    for value in (1.0, 2.0):
        before.run_epoch(first, val_loss=value)
    path = write_checkpoint(tmp_path / "a.pt", {"own": first.state_dict()})
    second, after = resumed(read_checkpoint(path)["own"], 2, **options)
    after.run_epoch(second, val_loss=2.0)
    second.on_train_end(after)
    assert weight_of(after) == 2


def test_no_checkpoint_holds_the_best_weights_twice():
    stopper, trainer = begun(restore_best_weights=True)
    held = []
    for value in (1.0, 2.0, 0.5):
        trainer.run_epoch(stopper, val_loss=value)
        held.append("weights" in stopper.state_dict())
    assert held == [False, True, False]


def test_extra_state_of_a_module_is_copied_too():
    class Odd(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, list[int]]:
            return {"kept": [1]}

        def set_extra_state(self, state: dict[str, list[int]]) -> None:
            self.kept = state["kept"]

    stopper, trainer = begun(restore_best_weights=True)
    trainer.model = Odd(1, 1)
    for value in (1.0, 2.0):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert trainer.model.kept == [1]
