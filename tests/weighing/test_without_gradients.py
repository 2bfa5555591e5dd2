"""Where gradients or fp32 cannot be had, what is there is measured, and said."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from weighing.language import halved
from weighing.zoo import (
    SPLIT,
    Kind,
    Perceptron,
    contrastive,
    difference,
    numbers,
    of_step,
    sequences,
    stacked,
)

from training.errors import ConfigError


class Checkpointed(Perceptron):
    """Computes its layers twice, which ``autograd.grad`` passes by without a word."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of x (B, ..., 6)."""
        x = x.to(self.layers[0].weight.dtype).requires_grad_()
        return checkpoint(self.layers, x, use_reentrant=True)  # type: ignore[no-any-return]


class HalfCheckpointed(Perceptron):
    """Computes its last layers twice, which ``autograd.grad`` refuses."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        inner = self.layers[0](x)
        return checkpoint(self.layers[1:], inner, use_reentrant=True)  # type: ignore[no-any-return]


class _TrainOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, is_training: bool) -> Tensor:
        ctx.is_training = is_training
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        if not ctx.is_training:
            raise RuntimeError("backward can only be called in training mode")
        return gradient, None


class Recurrent(Perceptron):
    """Has gradients in train mode only, as cuDNN's recurrent layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return _TrainOnly.apply(self.layers(x), self.training)  # type: ignore[no-any-return]


class Mixed(Perceptron):
    """Its first layer has half weights: it runs under autocast only."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].to(torch.bfloat16)


def mean_of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over the labels that are not -100."""
    return F.cross_entropy(outputs.float().transpose(1, 2), targets)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over all rows, labelled or not."""
    return (outputs - targets.clamp(min=0)[..., None]).square().mean()


def said(caplog: Any) -> str:
    """Return what the package has logged about weights."""
    return "\n".join(
        r.getMessage() for r in caplog.records if r.name == "training.weighing"
    )


UNEVEN = sequences()


@pytest.mark.parametrize("model", [Checkpointed, HalfCheckpointed])
@pytest.mark.parametrize(
    ("loss", "unit"),
    [
        pytest.param(mean_of_labels, "labels", id="a mean over labels"),
        pytest.param(squares, "samples", id="a mean over rows"),
        pytest.param(
            lambda outputs, targets: squares(outputs, targets) * len(targets),
            "sum",
            id="a sum",
        ),
    ],
)
def test_w2_where_autograd_refuses_gradients_losses_tell(
    loss: Any, unit: str, model: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "training.weighing")
    kind = Kind(model, UNEVEN, stacked, of_step(loss))
    trainer = kind.trainer((8,), times=2)
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == unit
    assert "measured on 8 samples by losses" in said(caplog)
    assert difference(kind.update(SPLIT), kind.update((8,))) < 1e-5


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        pytest.param(
            Kind(Checkpointed, numbers(), stacked, of_step(contrastive)),
            "leaves losses that no unit explains",
            id="a contrastive loss",
        ),
        pytest.param(
            Kind(
                lambda: halved(Checkpointed()),
                UNEVEN,
                stacked,
                of_step(mean_of_labels),
            ),
            "the losses of half precision tell nothing",
            id="half weights",
        ),
    ],
)
def test_w2_losses_that_do_not_tell_are_refused(kind: Kind, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        kind.trainer((8,), times=2).train()


def test_a_weight_that_is_said_is_not_compared_by_losses(caplog: Any) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        loss = contrastive(model(batch[0]), batch[1])
        return {"loss": loss, "weight": len(batch[0])}

    kind = Kind(Checkpointed, numbers(), stacked, {"step_fn": step})
    kind.trainer((8,), times=2).train()
    assert said(caplog) == ""


def test_a_gradient_that_only_train_mode_has_is_taken_there(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "training.weighing")
    kind = Kind(Recurrent, UNEVEN, stacked, of_step(mean_of_labels))
    assert difference(kind.update(SPLIT), kind.update((8,))) < 1e-5
    assert "a mean over labels, measured on" in said(caplog)
    assert "by losses" not in said(caplog)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_model_that_runs_under_autocast_only_is_measured_under_it(
    precision: str,
) -> None:
    kind = Kind(Mixed, UNEVEN, stacked, of_step(mean_of_labels))
    for options in ({"precision": precision}, {}):
        trainer = kind.trainer((8,), times=2, **options)
        if not options:  # the control
            with pytest.raises(RuntimeError, match="dtype"):
                trainer.train()
            continue
        trainer.train()
        assert trainer.state.weigher.settings()["unit"] == "labels"


def test_w4_a_model_that_runs_in_fp32_is_measured_in_it_whatever_trains() -> None:
    """Half precision would hide what 0.1 % of a gradient depends on."""
    kind = Kind(Perceptron, UNEVEN, stacked, of_step(mean_of_labels))
    trainer = kind.trainer((8,), times=2, precision="bf16")
    trainer.train()
    assert trainer.state.weigher.settings()["r"] < 1e-6
