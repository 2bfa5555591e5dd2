"""An error of the user's own code is raised as it is, not told as "not measured"."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches

from training import ConfigError, NonFiniteError, Trainer
from training.weighing import sentences
from training.weighing.fit import Fit
from training.weighing.subject import Look


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


class Broken(nn.Module):
    """Its loss is never a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x) * float("nan")
        return logits


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("how", "has_mask"), [("step_fn", False), ("step_fn", True), ("loss_fn", False)]
)
def test_a_loss_that_is_never_finite_ends_the_run_whatever_a_batch_lacks(
    how: str, accumulation: int, has_mask: bool
) -> None:
    """Labels (B, 1) are no next tokens; and a mask may be all zeros."""

    def loss_of(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, labels.flatten())

    def step(model: nn.Module, batch: Any) -> torch.Tensor:
        x, labels, *_ = batch.values() if has_mask else batch
        return loss_of(model(x), labels)

    batches: list[Any] = [
        (torch.randn(4, 4), torch.randint(0, 3, (4, 1))) for _ in range(8)
    ]
    if has_mask:
        none = {"global_attention_mask": torch.zeros(4, 2)}
        batches = [{"x": x, "labels": y.flatten(), **none} for x, y in batches]
    model = Broken()
    given: dict[str, Any] = {"step_fn": step}
    if how == "loss_fn":
        given = {"loss_fn": loss_of}
    trainer = Trainer(
        *(model, batches),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        gradient_accumulation_steps=accumulation,
        device="cpu",
        **given,
    )
    with pytest.raises((NonFiniteError, ConfigError)):
        trainer.train()


def look_of(x: float, y: float, rest: float = 0.0) -> Look:
    """Return a look at one and two samples."""
    shares = {"samples": (1 / 3, 2 / 3), "sum": (1.0, 1.0)}
    return Look(fit=Fit(x, y, rest, 1e-5), sizes=(1, 2), shares=shares)


@pytest.mark.parametrize(
    ("x", "y", "rest", "told"),
    [
        pytest.param(
            *(0.333336, 0.666649, 0.0),
            "weigh 0.333336 and 0.666649, and 0.333333 and 0.666667 in a mean over "
            "samples, which rounding or random numbers may hide: loss_per='samples' if "
            "it is one",
            id="in as many digits as differ",
        ),
        pytest.param(
            *(1.004, 1.0, 0.0),
            "weigh 1.0040 and 1.0000, and 1.0000 and 1.0000 in a sum, which rounding "
            "or random numbers may hide: loss_per='sum' if it is one",
            id="a sum",
        ),
        pytest.param(0.27, 0.67, 0.0, "weigh 0.270 and 0.670", id="clearly another"),
        pytest.param(
            *(0.333, 0.667, 0.3),
            "weigh 0.33300 and 0.66700, and 30 % of a batch's gradient belongs to "
            "neither part, as in contrastive losses or with random numbers",
            id="by rows that depend on one another",
        ),
    ],
)
def test_shares_that_are_no_unit_s_are_told_from_the_nearest(
    x: float, y: float, rest: float, told: str
) -> None:
    assert sentences.none(look_of(x, y, rest)).endswith(f" samples {told}")


def test_weights_of_a_step_are_told_from_those_of_its_gradients() -> None:
    look = look_of(0.3334, 0.6666)
    look.shares["said"] = 1 / 3, 2 / 3
    said = sentences.disagreement(look)
    assert "have 0.333333 and 0.666667, but their gradients weigh 0.33" in said


class Outputs:
    """What a model of another library returns beside tensors."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class Named(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return Outputs(super().forward(x))


@pytest.mark.parametrize("is_mapping", [False, True])
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(weight=torch.ones(2)), nn.functional.mse_loss]
)
def test_a_loss_of_torch_that_is_given_outputs_is_told_how_to_take_logits(
    loss: Any, is_mapping: bool
) -> None:
    x, labels = torch.ones(2, 4), torch.tensor([0, 1])
    batch = {"x": x, "labels": labels} if is_mapping else (x, labels)
    told = r"the model returns, of type Outputs; .*outputs, targets: loss\("
    with pytest.raises((TypeError, AttributeError)) as caught:
        make_trainer(Named(4, 2), [batch], loss_fn=loss).train()
    assert re.search(told, "".join(caught.value.__notes__))

    def right(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.logits, targets)

    make_trainer(Named(4, 2), [batch], loss_fn=right).train()
