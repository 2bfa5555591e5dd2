"""P5: no bad number reaches the weights or a log."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import build, loader_of
from faults.sweep import newest_valid

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, NonFiniteError, Trainer


class Poisons(Callback):
    """Makes a loss or a gradient bad in one window."""

    def __init__(self, step: int, value: float, is_gradient: bool) -> None:
        self.step, self.value, self.is_gradient = step, value, is_gradient

    def on_before_step(self, trainer: Trainer) -> None:
        if self.is_gradient and trainer.step == self.step:
            next(trainer.model.parameters()).grad.fill_(self.value)  # type: ignore[union-attr]

    def on_batch_begin(self, trainer: Trainer, inputs: Any) -> None:
        if not self.is_gradient and trainer.step == self.step:
            inputs[0].fill_(self.value)


@pytest.mark.parametrize("is_gradient", [True, False], ids=["gradient", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_p5_a_bad_number_ends_the_run_on_its_own_step_before_the_update(
    tmp_path: Path, value: float, is_gradient: bool
) -> None:
    checkpoints = ModelCheckpointCallback(tmp_path, monitor=None, every_n_steps=1)
    trainer = build(Poisons(4, value, is_gradient), checkpoints)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train()
    assert caught.value.exit_code == 5
    assert trainer.update == 4
    assert all(torch.isfinite(each).all() for each in trainer.model.parameters())
    state = newest_valid(tmp_path)
    assert state is not None
    assert state["progress"]["step"] == 4


@pytest.mark.parametrize("is_gradient", [True, False], ids=["gradient", "loss"])
def test_p5_a_bad_window_is_skipped_where_that_is_the_policy_and_never_logged(
    is_gradient: bool,
) -> None:
    trainer = build(Poisons(4, math.nan, is_gradient), nonfinite="skip")
    trainer.train()
    assert trainer.state.progress.nonfinite_windows == 1
    assert trainer.update == trainer.step - 1
    assert all(math.isfinite(row["train_loss"]) for row in trainer.history)
    assert all(torch.isfinite(each).all() for each in trainer.model.parameters())


@pytest.mark.parametrize("is_spoilt", [True, False])
def test_p5_what_a_running_statistic_took_in_cannot_be_skipped(is_spoilt: bool) -> None:
    """A mask that is infinite from the beginning is no such thing."""
    poisons = Poisons(4, math.nan, is_gradient=not is_spoilt)
    trainer = build(poisons, loader=loader_of(drop_last=True), nonfinite="skip")

    def note(model: Any, inputs: tuple[Any, ...]) -> None:
        model.norm(inputs[0])

    trainer.model.norm = torch.nn.BatchNorm1d(4)
    trainer.model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    trainer.model.register_forward_pre_hook(note)
    if not is_spoilt:
        trainer.train()
        assert trainer.state.progress.nonfinite_windows == 1
        return
    with pytest.raises(NonFiniteError, match=r"'norm\.running_mean' took it in"):
        trainer.train()
    assert trainer.step == 4
