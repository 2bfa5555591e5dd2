"""A signal where an evaluation is due: what it finds is kept, as without the signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training import (
    Callback,
    EarlyStoppingCallback,
    EvaluationCallback,
    ModelCheckpointCallback,
    Trainer,
)

#: Steps between evaluations, and the one whose weights are the best.
EVERY, BEST = 4, 8


class Kill(Callback):
    """Asks the process to end, at one step or when that is evaluated."""

    def __init__(self, step: int, inside: bool) -> None:
        self.at, self.inside = step, inside

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.at and not self.inside:
            os.kill(os.getpid(), signal.SIGTERM)

    def evaluate(self, trainer: Trainer) -> None:
        if trainer.step == self.at and self.inside:
            os.kill(os.getpid(), signal.SIGTERM)


def build(folder: Path, *callbacks: Any, **saving: Any) -> Trainer:
    torch.manual_seed(5)
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    train, held_out = (
        DataLoader(TensorDataset(inputs[part], targets[part]), batch_size=4)
        for part in (slice(24), slice(24, 32))
    )
    return Trainer(
        model,
        train,
        val_dataloader=held_out,
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=4,
        seed=1,
        save_dir=folder,
        device="cpu",
        plugins=["no:progress"],
        callbacks=[
            EvaluationCallback(every_n_steps=EVERY),
            ModelCheckpointCallback(folder / "saved", **saving),
            EarlyStoppingCallback(patience=99, restore_best_weights=True),
            *callbacks,
        ],
    )


def ended(trainer: Trainer) -> list[Any]:
    """Return the best of the run, the weights at its end, and whose they are."""
    plugins: Any = trainer.plugins
    saved, stopper = plugins["checkpointing"], plugins["early_stopping"]
    weights = [p.tolist() for p in trainer.model.parameters()]
    best = saved.best_path and saved.best_path.name
    return [best, saved.best_value, stopper.best_value, trainer.weights_are, weights]


@pytest.mark.parametrize(
    "saving",
    [
        pytest.param({}, id="the best only"),
        pytest.param({"monitor": None, "save_best_only": False}, id="by age"),
        pytest.param({"save_best_only": False, "every_n_steps": EVERY}, id="all"),
    ],
)
@pytest.mark.parametrize(
    ("step", "inside"),
    [
        pytest.param(BEST, False, id="before the evaluation"),
        pytest.param(BEST, True, id="inside the evaluation"),
        pytest.param(BEST + 1, False, id="after the best"),
        pytest.param(BEST + 2 * EVERY, False, id="at an evaluation after the best"),
    ],
)
def test_the_best_is_kept_wherever_a_signal_ends_the_run(
    tmp_path: Path, step: int, inside: bool, saving: dict[str, Any]
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    trainer = build(whole, **saving)
    trainer.train()
    assert trainer.weights_are == f"best@{BEST}"
    with pytest.raises(SystemExit):
        build(parted, Kill(step, inside), **saving).train()
    resumed = build(parted, **saving)
    resumed.train(resume="auto")
    assert ended(resumed) == ended(trainer)


class Again(Callback):
    """Asks for one evaluation more, when the one at ``EVERY`` has been made."""

    def __init__(self) -> None:
        self.places: list[int] = []

    def on_metrics(self, trainer: Trainer) -> None:
        self.places.append(trainer.step)
        if self.places.count(EVERY) == len(self.places) == 1:
            trainer.request_evaluation("once more")

    def state_dict(self) -> dict[str, Any]:
        return {"places": self.places}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.places = list(state["places"])


class Leaves(Callback):
    """Asks the process to end where the run is saved, behind what was asked for."""

    after = ("checkpointing",)

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == EVERY:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(lambda: Kill(EVERY, inside=False), id="before the evaluation"),
        pytest.param(lambda: Kill(EVERY, inside=True), id="inside the evaluation"),
        pytest.param(Leaves, id="behind it"),
        pytest.param(lambda: Kill(EVERY + 1, inside=False), id="at the one more"),
    ],
)
def test_one_more_evaluation_is_made_where_it_was_without_a_signal(
    tmp_path: Path, kill: Any
) -> None:
    saving = {"save_best_only": False, "every_n_steps": EVERY, "monitor": None}
    again, whole = Again(), build(tmp_path / "whole", **saving)
    whole.bus.register(again)
    whole.train()
    assert again.places[:3] == [EVERY, EVERY + 1, 6]
    with pytest.raises(SystemExit):
        build(tmp_path / "parted", Again(), kill(), **saving).train()
    resumed = Again()
    build(tmp_path / "parted", resumed, **saving).train(resume="auto")
    assert resumed.places == again.places


class AsksAsItIsSaved(Again):
    """Asks for its evaluation where the run is saved, before who saves it."""

    before = ("Saves",)
    on_metrics = None  # type: ignore[assignment]

    def evaluate(self, trainer: Trainer) -> None:
        self.places.append(trainer.step)

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == EVERY:
            trainer.request_evaluation("once more")


class Saves(Callback):
    """Saves inside an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == EVERY - 1:
            trainer.request_checkpoint("before")
        if trainer.step == EVERY:
            trainer.request_checkpoint("here")

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if reason.startswith("here"):
            trainer.save_checkpoint(self.path)


def test_an_evaluation_asked_for_where_the_run_is_saved_is_made_where_it_was(
    tmp_path: Path,
) -> None:
    again, file = AsksAsItIsSaved(), tmp_path / "here.pt"
    whole = build(tmp_path / "whole", again, Saves(file))
    whole.train()
    assert EVERY + 1 in again.places
    resumed = AsksAsItIsSaved()
    build(tmp_path / "parted", resumed).train(resume=file)
    assert resumed.places == again.places
