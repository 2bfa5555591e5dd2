"""A weight that is none ends a run alike, whoever says it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import make_trainer, regression_batches

from training import ConfigError, DataError
from training.recipes.batch import Batch


def stepping(weight: Any) -> dict[str, Any]:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": model(*batch)["loss"], "weight": weight}

    return {"step_fn": step}


def weighing(weight: Any) -> dict[str, Any]:
    return {"loss_per": lambda batch: weight}


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.layer(x[:, :1]).mean()}


def carrying(weight: Any) -> dict[str, Any]:
    x, _ = regression_batches(1, 8)[0]
    return {"model": Named(), "batches": [Batch({"x": x}, [], weight)]}


@pytest.mark.parametrize(
    ("loss_per", "shown"),
    [
        pytest.param("samples", "'samples'", id="a unit"),
        pytest.param(lambda batch: 8.0, "a function", id="a function"),
    ],
)
def test_a_loss_per_that_batches_overrule_is_told_once_and_changes_nothing(
    loss_per: Any, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    def trained(loss_per: Any) -> Tensor:
        torch.manual_seed(0)
        x, _ = regression_batches(1, 8)[0]
        parts = [Batch({"x": x[:2]}, [], 2), Batch({"x": x[2:]}, [], 6)] * 2
        made = make_trainer(
            Named(), parts, loss_per=loss_per, gradient_accumulation_steps=2
        )
        made.train()
        return made.model.layer.weight.detach()

    alone = trained(None)
    assert caplog.messages == []
    assert torch.equal(trained(loss_per), alone)
    assert caplog.messages == [
        f"loss_per is {shown}, but a batch has the loss_weight 2, which counts: leave "
        "loss_per out, or make batches without a loss_weight"
    ]


@pytest.mark.parametrize(
    ("loss_per", "shown"),
    [
        pytest.param("samples", "'samples'", id="a unit"),
        pytest.param(lambda batch: 8.0, "a function", id="a function"),
    ],
)
def test_a_loss_per_that_a_step_function_overrules_is_told_once_and_changes_nothing(
    loss_per: Any, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": model(*batch)["loss"], "weight": len(batch[0])}

    def trained(loss_per: Any) -> dict[str, Tensor]:
        made = make_trainer(
            step_fn=step, loss_per=loss_per, gradient_accumulation_steps=2
        )
        made.train()
        return made.model.state_dict()

    alone = trained(None)
    assert caplog.messages == []
    pairs = zip(trained(loss_per).values(), alone.values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert caplog.messages == [
        f"loss_per is {shown}, but step_fn returned the weight 2, which counts: leave "
        "loss_per out, or return none"
    ]


@pytest.mark.parametrize(
    ("speaks", "error", "code", "who"),
    [
        pytest.param(stepping, ConfigError, 2, "step_fn returned", id="step_fn"),
        pytest.param(weighing, ConfigError, 2, "loss_per returned", id="loss_per"),
        pytest.param(carrying, DataError, 3, "a batch has", id="the batch"),
    ],
)
@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        pytest.param(-1, "-1", id="below 0"),
        pytest.param(float("nan"), "nan", id="NaN"),
        pytest.param("3", "'3'", id="text"),
        pytest.param(True, "True", id="a truth"),
        pytest.param([], "[]", id="no number"),
        pytest.param(10**400, "100", id="too large"),
    ],
)
def test_a_weight_that_is_no_amount_is_refused_whoever_says_it(
    weight: Any,
    shown: str,
    speaks: Callable[[Any], dict[str, Any]],
    error: type[Exception],
    code: int,
    who: str,
) -> None:
    told = rf"{who} the (loss_)?weight {re.escape(shown)}.*; make it the number of"
    with pytest.raises(error, match=told) as caught:
        make_trainer(**speaks(weight)).train()
    assert vars(type(caught.value))["exit_code"] == code
