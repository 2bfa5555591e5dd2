"""Non-finite values never reach the weights; a skipped step is known to be skipped."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import (
    DEVICES,
    Overflow,
    Recorder,
    Regression,
    SpoilsGradient,
    assert_equal_weights,
    make_trainer,
    regression_batches,
    weights_are_finite,
)

from training import ConfigError, NonFiniteError, Trainer
from training.loop.forward import make_forward
from training.loop.gradients import GradientCheck
from training.loop.precision import Precision
from training.loop.window import Window

#: A model that counts its calls would count those of a measurement.
SAID = {"loss_per": "samples"}


class Poisoned(nn.Module):
    """Returns a bad loss, or a finite loss with a bad gradient, on one call."""

    def __init__(self, call: int, kind: str) -> None:
        super().__init__()
        self.inner = Regression()
        self.call, self.kind, self.calls = call, kind, 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.inner(x, y)["loss"]
        self.calls += 1
        if self.calls != self.call:
            return loss
        if self.kind == "gradient":  # sqrt at 0: value 0, gradient infinite
            return loss + (self.inner.layers[0].weight.sum() * 0.0).abs().sqrt()
        return loss * float(self.kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_by_default_a_bad_value_stops_the_run_before_the_weights(
    kind: str, device: str, max_grad_norm: float | None
) -> None:
    model = Poisoned(3, kind)
    options = {"max_grad_norm": max_grad_norm, **SAID}
    trainer = make_trainer(model, device=device, **options)
    with pytest.raises(NonFiniteError, match="left the weights alone") as caught:
        trainer.train()
    assert caught.value.exit_code == 5
    assert weights_are_finite(model)
    assert trainer.step == 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_policy_skip_drops_the_window_and_counts_it(kind: str, device: str) -> None:
    model, recorder = Poisoned(3, kind), Recorder()
    options = {"nonfinite": "skip", **SAID}
    trainer = make_trainer(model, None, recorder, device=device, **options)
    trainer.train()
    assert (trainer.step, trainer.update) == (4, 3)
    assert trainer.state.progress.nonfinite_windows == 1
    assert weights_are_finite(model)
    assert math.isfinite(trainer.history[0]["train_loss"])


def test_a_skipped_window_leaves_the_weights_of_the_others() -> None:
    batches = regression_batches(4)
    with_bad = Poisoned(3, "nan")
    make_trainer(with_bad, batches, nonfinite="skip", **SAID).train()
    without = Regression()
    make_trainer(without, [b for i, b in enumerate(batches) if i != 2]).train()
    assert_equal_weights(with_bad, without)


class CountsReads(GradientCheck):
    """Counts how often the host asks what was found."""

    reads = 0

    def read(self) -> bool:
        self.reads += 1
        return super().read()


def corrected(model: nn.Module) -> tuple[Window, CountsReads]:
    """Return a window that clips, and whose batches weigh 2 and 4, and its check."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    window = Window(
        *(model, optimizer, make_forward(None, None)),
        Precision("fp32", torch.device("cpu")),
        accumulation=2,
        max_grad_norm=1.0,
        nonfinite="skip",
    )
    window._check = check = CountsReads(list(model.parameters()))
    return window, check


def fill(window: Window) -> None:
    for size in (2, 4):
        window.backward(regression_batches(1, size)[0], float(size))


def test_where_gradients_are_clipped_their_norm_alone_is_read() -> None:
    window, check = corrected(Regression())
    fill(window)
    assert window.step().applied
    assert check.reads == 0
    fill(window)
    assert window.step(lambda: None).applied
    assert check.reads == 1


def test_what_was_bad_in_a_dropped_window_is_forgotten_with_it() -> None:
    window, _ = corrected(Poisoned(2, "gradient"))
    fill(window)
    assert window.step().nonfinite
    fill(window)
    assert window.step(lambda: None).applied


def test_a_gradient_that_a_plugin_spoils_is_found_too() -> None:
    model = Regression()
    with pytest.raises(NonFiniteError):
        make_trainer(model, None, SpoilsGradient(0)).train()
    assert weights_are_finite(model)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of: stop, skip"):
        make_trainer(nonfinite="ignore")


OPTIMIZERS = [
    pytest.param({"fused": False}, id="plain"),
    pytest.param({"fused": True}, id="fused"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0], ids=["no unscale", "unscale"])
def test_overflow_skips_the_update_and_only_the_update(
    kind: dict[str, Any], max_grad_norm: float | None, device: str
) -> None:
    recorder, model = Recorder(), Regression().to(device)
    trainer = Trainer(
        model=model,
        train_dataloader=regression_batches(5),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01, **kind),
        callbacks=[recorder, Overflow(1, 3)],
        fp16=True,
        max_grad_norm=max_grad_norm,
        device=device,
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (5, 3)
    assert trainer.state.progress.skipped_windows == 2
    assert trainer.state.progress.nonfinite_windows == 0
    assert weights_are_finite(model)
    assert trainer.grad_scaler is not None
    assert trainer.grad_scaler.get_scale() == 65536.0 / 4
    has_norm = ["grad_norm" in logs for logs in recorder.logs]
    applied = [False, True, False, True, True]
    assert has_norm == (applied if max_grad_norm else [False] * 5)
    assert all(math.isfinite(v) for logs in recorder.logs for v in logs.values())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_on_a_cpu_trains(precision: str) -> None:
    trainer = make_trainer(None, None, precision=precision, num_epochs=3)
    trainer.train()
    losses = [row["train_loss"] for row in trainer.history]
    assert losses[-1] < losses[0]
    assert (trainer.grad_scaler is not None) == (precision == "fp16")


def test_clipping_happens_after_unscaling() -> None:
    norms = []
    for precision in ("fp32", "fp16"):
        recorder = Recorder()
        batches = regression_batches(1) * 8  # the first fp16 steps may overflow
        make_trainer(
            None, batches, recorder, precision=precision, max_grad_norm=0.1
        ).train()
        norms.append(next(x["grad_norm"] for x in recorder.logs if "grad_norm" in x))
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"precision": "fp8"}, "fp32, bf16, fp16", id="unknown precision"),
        pytest.param(
            {"precision": "bf16", "fp16": True}, "contradict", id="two precisions"
        ),
        pytest.param({"device": "cuda:99"}, "CUDA devices", id="absent device"),
        pytest.param({"device": "gpu"}, "use 'cpu'", id="no device"),
        pytest.param({"num_epochs": 0}, "at least 1", id="no epoch"),
        pytest.param({"num_epochs": 1.5}, "whole number", id="broken epoch"),
        pytest.param({"max_grad_norm": -1.0}, "0 or more", id="negative norm"),
        pytest.param({"max_grad_norm": math.nan}, "0 or more", id="NaN norm"),
        pytest.param({"gradient_accumulation_steps": 0}, "at least 1", id="no batch"),
        pytest.param({"max_steps": 0}, "at least 1", id="no step"),
        pytest.param({"max_steps": True}, "whole number", id="true step"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        make_trainer(**options)
