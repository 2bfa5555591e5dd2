"""An error of the user's own code is raised as it is, not told as "not measured"."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy import Regression, make_trainer, regression_batches


def step_that_breaks(model: Regression, batch: Any) -> torch.Tensor:
    raise LookupError("no such column: 'label'")


def step_for_training_only(model: Regression, batch: Any) -> torch.Tensor:
    assert model.training, "this loss is for training only"
    loss: torch.Tensor = model(*batch)["loss"]
    return loss


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_error_of_the_step_is_raised_as_it_is(accumulation: int) -> None:
    trainer = make_trainer(
        None,
        regression_batches(4),
        step_fn=step_that_breaks,
        gradient_accumulation_steps=accumulation,
    )
    with pytest.raises(LookupError, match="no such column"):
        trainer.train()


def test_a_step_that_works_in_training_only_is_measured() -> None:
    trainer = make_trainer(
        None,
        regression_batches(4),
        step_fn=step_for_training_only,
        gradient_accumulation_steps=2,
    )
    trainer.train()
    assert trainer.step > 0


def test_an_error_of_the_model_is_told_once() -> None:
    batches = [(x.double(), y) for x, y in regression_batches(2)]
    with pytest.raises(RuntimeError, match="dtype") as raised:
        make_trainer(None, batches).train()
    assert raised.value.__context__ is None
