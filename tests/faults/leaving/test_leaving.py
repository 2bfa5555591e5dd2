"""P1: a signal waits for no evaluation, and one that fails costs no training."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import assert_same_end, build, end_of

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_evaluation import EvaluationCallback
from training import Callback, TrainbusError, Trainer

BATCHES = 9


class Validation(list[Any]):
    """Batches to evaluate, counted; at one of them it sends SIGTERM, or fails."""

    def __init__(self, at: int | None = None, fails: bool = False) -> None:
        chance = torch.Generator().manual_seed(0)
        rows = [torch.randn(2, 4, generator=chance) for _ in range(BATCHES)]
        super().__init__((x, x.sum(1, keepdim=True), torch.zeros(2)) for x in rows)
        self.at, self.fails = at, fails
        self.read = 0

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            self.read += 1
            if self.read == self.at and self.fails:
                raise OSError("picture 17 cannot be read")
            if self.read == self.at:
                signal.raise_signal(signal.SIGTERM)
            yield batch


class Tells(Callback):
    """Sends SIGTERM after one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            signal.raise_signal(signal.SIGTERM)


def trainer_of(
    folder: Path, validation: Validation, *others: Any, **options: Any
) -> Trainer:
    """Return a run of two epochs of six steps, evaluated every four steps."""
    return build(
        EvaluationCallback(every_n_steps=4, sanity_batches=0),
        ModelCheckpointCallback(folder, **options),
        *others,
        val_dataloader=validation,
    )


def straight(folder: Path) -> tuple[Trainer, int]:
    """Return an undisturbed run, and how many batches it evaluated."""
    validation = Validation()
    trainer = trainer_of(folder, validation)
    trainer.train()
    assert_same_end(trainer.stop_owner, "trainer", "or it is no control")
    return trainer, validation.read


def resumed(folder: Path) -> tuple[Trainer, int]:
    """Return a run that went on in ``folder``, and the batches it evaluated."""
    validation = Validation()
    trainer = trainer_of(folder, validation)
    found = trainer.plugins["checkpointing"].resume_candidates(trainer)
    trainer.load_checkpoint(found[0][0])
    trainer.train()
    return trainer, validation.read


PLACES = pytest.mark.parametrize(
    ("evaluation", "step"),
    [
        pytest.param(1, 4, id="inside an epoch"),
        pytest.param(2, 6, id="at an epoch's end"),
        pytest.param(4, 12, id="at the end of the run"),
    ],
)


@PLACES
def test_p1_a_signal_in_an_evaluation_ends_it_and_the_resumed_run_makes_it(
    tmp_path: Path, evaluation: int, step: int
) -> None:
    whole, all_batches = straight(tmp_path / "whole")
    assert all_batches == 4 * BATCHES
    begun = (evaluation - 1) * BATCHES
    validation = Validation(at=begun + 2)
    trainer = trainer_of(tmp_path / "cut", validation)
    with pytest.raises(SystemExit, match="143"):
        trainer.train()
    assert validation.read == begun + 2
    assert trainer.step == step
    assert trainer.epoch == (step - 1) // 6, "that epoch is not over"
    rest, read = resumed(tmp_path / "cut")
    assert read == all_batches - begun
    assert_same_end(end_of(rest), end_of(whole), "the end")


@PLACES
@pytest.mark.parametrize("save_last", [True, False])
def test_p1_an_evaluation_that_fails_costs_no_training_and_the_resumed_run_makes_it(
    tmp_path: Path, evaluation: int, step: int, save_last: bool
) -> None:
    whole, all_batches = straight(tmp_path / "whole")
    begun = (evaluation - 1) * BATCHES
    validation = Validation(at=begun + 2, fails=True)
    trainer = trainer_of(tmp_path / "cut", validation, save_last=save_last)
    with pytest.raises(OSError, match="picture 17 cannot be read") as caught:
        trainer.train()
    last = trainer.plugins["checkpointing"].last_path
    assert f"step {step}; the newest checkpoint is {last}" in caught.value.__notes__[-1]
    assert (trainer.step, trainer.stop_owner) == (step, "error")
    rest, read = resumed(tmp_path / "cut")
    assert read == all_batches - begun
    assert_same_end(end_of(rest), end_of(whole), "the end")


def test_p1_an_evaluation_that_fails_is_the_error_also_where_saving_fails_then(
    tmp_path: Path,
) -> None:
    class Fails(Callback):
        def on_checkpoint(self) -> None:
            raise ValueError("no room")

    validation = Validation(at=2, fails=True)
    trainer = trainer_of(tmp_path, validation, Fails())
    with pytest.raises(OSError, match="picture 17 cannot be read") as caught:
        trainer.train()
    assert any("then saving" in n and "no room" in n for n in caught.value.__notes__)


def test_p1_an_evaluation_that_fails_is_what_ends_a_run_that_was_to_stop(
    tmp_path: Path,
) -> None:
    class Stops(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 6:
                trainer.request_stop("time is up")

    validation = Validation(at=BATCHES + 2, fails=True)
    trainer = trainer_of(tmp_path, validation, Stops(), save_last=False)
    with pytest.raises(OSError, match="picture 17"):
        trainer.train()
    assert (trainer.stop_owner, trainer.step) == ("error", 6)
    assert trainer.plugins["checkpointing"].last_path.name.endswith("step6.pt")


def test_p1_who_does_not_wait_for_that_save_leaves_at_once(tmp_path: Path) -> None:
    class Told(Callback):
        def on_checkpoint(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    trainer = trainer_of(tmp_path, Validation(at=2, fails=True), Told())
    with pytest.raises(SystemExit, match="143") as caught:
        trainer.train()
    assert "an evaluation had failed: OSError" in str(caught.value.__notes__)


@pytest.mark.parametrize("name", ["val_los", "train_loss"])
def test_p1_metrics_that_are_refused_cost_no_training(
    tmp_path: Path, name: str
) -> None:
    class Delivers(Callback):
        def evaluate(self) -> dict[str, float]:
            return {name: 1.0}

    trainer = build(Delivers(), ModelCheckpointCallback(tmp_path))
    with pytest.raises(TrainbusError, match=name):
        trainer.train()
    assert trainer.plugins["checkpointing"].last_path.name.endswith("step6.pt")


def test_p1_a_signal_before_an_evaluation_that_was_asked_for_leaves_it_to_the_rest(
    tmp_path: Path,
) -> None:
    whole, all_batches = straight(tmp_path / "whole")
    validation = Validation()
    with pytest.raises(SystemExit, match="143"):
        trainer_of(tmp_path / "cut", validation, Tells(4)).train()
    assert validation.read == 0
    rest, read = resumed(tmp_path / "cut")
    assert read == all_batches
    assert_same_end(end_of(rest), end_of(whole), "the end")


def test_p1_what_an_abandoned_evaluation_drew_is_drawn_again(tmp_path: Path) -> None:
    class Draws(Callback):
        def __init__(self, is_told: bool) -> None:
            self.is_told = is_told

        def metric_names(self) -> list[str]:
            return ["val_loss"]

        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            value = random.random() + float(torch.rand(()))
            if self.is_told and trainer.step == 6:
                signal.raise_signal(signal.SIGTERM)
            trainer.abandon_if_leaving()
            return {"val_loss": value}

    def trainer_with(folder: str, is_told: bool) -> Trainer:
        return build(Draws(is_told), ModelCheckpointCallback(tmp_path / folder))

    whole = trainer_with("whole", False)
    whole.train()
    with pytest.raises(SystemExit, match="143"):
        trainer_with("cut", True).train()
    rest = trainer_with("cut", False)
    found = rest.plugins["checkpointing"].resume_candidates(rest)
    rest.load_checkpoint(found[0][0])
    rest.train()
    assert_same_end(end_of(rest), end_of(whole), "the end")


def test_nothing_is_abandoned_outside_an_evaluation_or_without_a_signal() -> None:
    class Asks(Callback):
        def on_batch_end(self, trainer: Trainer) -> None:
            if trainer.step == 3:
                signal.raise_signal(signal.SIGTERM)
            trainer.abandon_if_leaving()

        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            trainer.abandon_if_leaving()
            return {"val_loss": 1.0}

    trainer = build(Asks())
    with pytest.raises(SystemExit, match="143"):
        trainer.train()
    assert trainer.step == 4
    build(Asks(), max_steps=2).train()
