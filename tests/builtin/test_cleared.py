"""Gradients that a hook clears inside a window are told of once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches

from training import Callback, Trainer

SAID = "the gradients of the first batch were cleared before the second one of its"


class Clears(Callback):
    """Clears gradients as a loop by hand does, when a batch begins."""

    def __init__(self, keeps_tensors: bool = False, from_step: int = 0) -> None:
        self.keeps_tensors, self.from_step = keeps_tensors, from_step

    def on_batch_begin(self, trainer: Trainer) -> None:
        if trainer.step >= self.from_step:
            trainer.optimizer.zero_grad(set_to_none=not self.keeps_tensors)


class Watches(Callback):
    """Hears what it could clear, and leaves it."""

    def on_batch_begin(self, trainer: Trainer) -> None:
        """Do nothing."""


def step_fn(model: Any, batch: Any) -> Any:
    return model(*batch)["loss"]


@pytest.mark.parametrize("options", [{}, {"step_fn": step_fn}], ids=["own", "step_fn"])
@pytest.mark.parametrize("keeps_tensors", [False, True], ids=["to None", "to 0"])
def test_gradients_cleared_between_two_batches_of_a_window_are_told_of_once(
    keeps_tensors: bool, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"gradient_accumulation_steps": 2, **options}
    trainer = make_trainer(
        None, regression_batches(8), Clears(keeps_tensors), **options
    )
    trainer.train()
    assert caplog.text.count(SAID) == 1
    assert "backward" not in vars(trainer._run.window), "later steps pay nothing"


@pytest.mark.parametrize(
    ("callback", "accumulation", "batches"),
    [(Watches(), 2, 8), (Clears(), 1, 8), (Watches(), 2, 1), (Watches(), 3, 4)],
    ids=["left", "each batch is a step", "a window of one batch", "a rest of one"],
)
def test_where_a_window_keeps_its_gradients_nothing_is_said(
    callback: Callback,
    accumulation: int,
    batches: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"gradient_accumulation_steps": accumulation, "num_epochs": 2}
    make_trainer(None, regression_batches(batches), callback, **options).train()
    assert SAID not in caplog.text


def test_an_optimizer_that_takes_gradients_within_backward_is_not_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Regression()

    def take(parameter: Any) -> None:
        parameter.kept = parameter.grad
        parameter.grad = None

    for each in model.parameters():
        each.register_post_accumulate_grad_hook(take)
    options = {"gradient_accumulation_steps": 2}
    make_trainer(model, regression_batches(8), Watches(), **options).train()
    assert SAID not in caplog.text


def test_a_first_batch_that_gives_no_gradient_is_not_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Linear(4, 1)
    seen: list[int] = []

    def step(model: Any, batch: Any) -> Any:
        seen.append(1)
        loss = (model(batch[0]) - batch[1]).square().mean()
        return {"loss": loss * float(len(seen) > 1), "weight": len(batch[0])}

    options = {"gradient_accumulation_steps": 2, "step_fn": step}
    make_trainer(model, regression_batches(8), Watches(), **options).train()
    assert torch.isfinite(model.weight).all()
    assert SAID not in caplog.text
