"""C13: a wrong value in the state of a shipped plugin is refused, or is harmless."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.files.test_crafted import Counts, Leaves, crafted, places, wrong_for
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, SequentialLR, StepLR

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from trainbus_logging import TensorBoardCallback
from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import CheckpointError, TrainbusError, Trainer

exhaustive = pytest.mark.exhaustive


def one_cycle(optimizer: Any) -> LearningRateSchedulerCallback:
    made = OneCycleLR(optimizer, 0.02, total_steps=12)
    return LearningRateSchedulerCallback(made, interval="step")


def in_turn(optimizer: Any) -> LearningRateSchedulerCallback:
    parts = [StepLR(optimizer, 2), StepLR(optimizer, 3)]
    return LearningRateSchedulerCallback(
        SequentialLR(optimizer, parts, [3]), interval="step"
    )


#: Case -> the plugin whose state is crafted, and how it is made.
PLUGINS: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "early stopping": (
        "early_stopping",
        lambda _, __: EarlyStoppingCallback(
            restore_best_weights=True, persist_best="weights"
        ),
    ),
    "checkpointing": (
        "checkpointing",
        lambda _, folder: ModelCheckpointCallback(folder / "kept", carry_best=True),
    ),
    "tensorboard": (
        "tensorboard",
        lambda _, folder: TensorBoardCallback(folder / "curves"),
    ),
    "cosine": (
        "lr_scheduling",
        lambda _, __: LearningRateSchedulerCallback(type="cosine", warmup=2),
    ),
    "drops": (
        "lr_scheduling",
        lambda _, __: LearningRateSchedulerCallback(type="step", step_size=2),
    ),
    "plateau": (
        "lr_scheduling",
        lambda _, __: LearningRateSchedulerCallback(type="plateau", patience=0),
    ),
    "one cycle": ("lr_scheduling", lambda optimizer, _: one_cycle(optimizer)),
    "one after the other": ("lr_scheduling", lambda optimizer, _: in_turn(optimizer)),
}


def make(case: str, folder: Path, *more: Any) -> Trainer:
    """Return a trainer of 4 epochs with 3 steps that measures once an epoch."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return Trainer(
        model,
        [(torch.ones(2, 2), torch.ones(2, 1))] * 3,
        optimizer=optimizer,
        loss_fn=nn.functional.mse_loss,
        num_epochs=4,
        seed=0,
        device="cpu",
        callbacks=[Counts(), PLUGINS[case][1](optimizer, folder), *more],
    )


def saved_by(case: str, folder: Path) -> dict[str, Any]:
    trainer = make(case, folder, Leaves(folder / "a.pt"))
    trainer.train()
    state: dict[str, Any] = torch.load(folder / "a.pt", weights_only=True)
    return state


class Refusals(logging.Handler):
    """Hears of a plugin that observes only, whose failures end no run."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "failed in load_state_dict" in text and "CheckpointError" in text:
            self.told = text


def outcome(case: str, folder: Path, state: dict[str, Any]) -> tuple[str, str]:
    """Return how a run that goes on from ``state`` ended, and what was wrong."""
    torch.save(state, folder / "odd.pt")
    trainer, name = make(case, folder), PLUGINS[case][0]
    try:
        trainer.load_checkpoint(folder / "odd.pt")
    except CheckpointError:
        return "refused", ""
    weights = copy.deepcopy(trainer.model.state_dict())
    heard, log = Refusals(), logging.getLogger("training.bus.bus")
    log.addHandler(heard)
    try:
        trainer.train()
    except TrainbusError as error:
        told = "" if name in str(error) and "\n" not in str(error) else str(error)
        now = trainer.model.state_dict()
        if not all(torch.equal(now[key], weights[key]) for key in now):
            told = told or f"weights had moved: {error}"
        return "refused", told
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"
    finally:
        log.removeHandler(heard)
    return "refused" if heard.told else "loaded", ""


def tried(case: str, folder: Path, most: int | None) -> tuple[list[str], int]:
    state = saved_by(case, folder)
    start = "plugins", PLUGINS[case][0]
    kept = state["plugins"][start[1]]
    cases = [(at, w) for at, value in places(kept) for w in wrong_for(value)]
    chosen = cases
    if most is not None and most < len(cases):
        chosen = random.Random(4).sample(cases, most)
    wrong, refused = [], 0
    for at, (called, value) in chosen:
        changed = crafted(state, (*start, *at), value)
        if changed is None:
            continue
        end, told = outcome(case, folder, changed)
        refused += end == "refused"
        if told:
            wrong.append(f"{'.'.join(map(str, at))} {called}: {end}: {told}")
    return wrong, refused


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", PLUGINS)
@pytest.mark.parametrize(
    "most",
    [
        pytest.param(15, id="15 states"),
        pytest.param(None, id="every state", marks=exhaustive),
    ],
)
def test_c13_a_wrong_value_in_a_plugins_state_is_refused_before_a_step_or_is_harmless(
    tmp_path: Path, case: str, most: int | None
) -> None:
    wrong, refused = tried(case, tmp_path, most)
    assert wrong == []
    assert refused


@pytest.mark.parametrize("case", PLUGINS)
def test_c13_a_plugins_state_as_it_was_saved_is_taken(
    tmp_path: Path, case: str
) -> None:
    """The control."""
    assert outcome(case, tmp_path, saved_by(case, tmp_path)) == ("loaded", "")


@pytest.mark.parametrize("name", ["../up", "/up", "run-2/../..", "curves"])
def test_c13_curves_stay_below_their_folder(tmp_path: Path, name: str) -> None:
    state = saved_by("tensorboard", tmp_path)
    state["plugins"]["tensorboard"]["run_name"] = name
    assert outcome("tensorboard", tmp_path, state) == ("refused", "")
