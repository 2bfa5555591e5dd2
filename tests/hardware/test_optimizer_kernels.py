"""A fused SGD keeps its momentum clean where a step is told to do nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Regression, regression_batches, weights_of

from training import Callback, Trainer
from training.hardware.optimizer_kernels import prepare_momentum


@pytest.fixture
def foul_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory that nobody wrote hold NaN, as it may."""
    monkeypatch.setattr(
        torch, "empty_like", lambda like, **_: torch.full_like(like, float("nan"))
    )


def make(model: nn.Module, *callbacks: Any, **options: Any) -> Trainer:
    settings = {"lr": 0.01, "momentum": 0.9, "fused": True, **options.pop("sgd", {})}
    return Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(model.parameters(), **settings),
        callbacks=list(callbacks),
        **{"precision": "fp16", "device": "cpu", **options},
    )


class Overflows(Callback):
    """Makes the gradients of the first step infinite."""

    def __init__(self) -> None:
        self.applied: list[bool] = []

    def on_before_step(self, trainer: Trainer) -> None:
        pass

    def on_step_end(self, applied: bool) -> None:
        self.applied.append(bool(applied))


def overflowing(model: nn.Module, times: int = 1) -> nn.Module:
    """Return ``model`` with infinite gradients in its first ``times`` passes."""
    left = [times]

    def spoil(gradient: Tensor) -> Tensor:
        left[0] -= 1
        return gradient * float("inf") if left[0] >= 0 else gradient

    next(model.parameters()).register_hook(spoil)
    return model


@pytest.mark.usefixtures("foul_memory")
@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_first_step_that_overflows_leaves_no_trace_in_the_momentum(
    dampening: float, max_norm: float | None
) -> None:
    weights, applied = [], []
    for fused in (False, True):
        heard = Overflows()
        sgd = {"fused": fused, "dampening": dampening}
        model = overflowing(Regression())
        make(model, heard, sgd=sgd, max_grad_norm=max_norm).train()
        weights.append(weights_of(model))
        applied.append(heard.applied)
    assert applied == [[False, True, True, True]] * 2
    for plain, fused_ in zip(*weights, strict=True):
        assert fused_.isfinite().all()
        assert torch.allclose(plain, fused_, atol=1e-6)


@pytest.mark.usefixtures("foul_memory")
def test_the_fixture_fouls_what_torch_alone_would_use() -> None:
    """The control: without the zeros the weights become NaN."""
    model = Regression()
    optimizer: Any = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, fused=True
    )
    for is_bad in (1.0, 0.0):
        model(*regression_batches()[0])["loss"].backward()
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(is_bad)
        optimizer.step()
    assert not all(weight.isfinite().all() for weight in weights_of(model))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_from_zeros_five_steps_have_the_bits_of_torch_s_own(
    nesterov: bool, weight_decay: float
) -> None:
    weights = []
    for is_prepared in (False, True):
        model = Regression()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=0.1,
            momentum=0.9,
            nesterov=nesterov,
            weight_decay=weight_decay,
            fused=True,
        )
        if is_prepared:
            prepare_momentum(optimizer)
        for batch in [*regression_batches(), *regression_batches(1)]:
            optimizer.zero_grad()
            model(*batch)["loss"].backward()
            optimizer.step()
        weights.append(weights_of(model))
    assert all(map(torch.equal, *weights))


@pytest.mark.usefixtures("foul_memory")
def test_a_group_that_joins_is_prepared_too() -> None:
    class Joins(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                extra = nn.Parameter(torch.zeros(1))
                trainer.optimizer.add_param_group({"params": [extra]})

    trainer = make(Regression(), Joins())
    trainer.train()
    buffers = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert len(buffers) == 5
    assert all(buffer.isfinite().all() for buffer in buffers)


@pytest.mark.usefixtures("foul_memory")
def test_a_run_saved_unfused_goes_on_fused_and_is_prepared_too(
    tmp_path: Path,
) -> None:
    saved = make(Regression(), sgd={"fused": False}).save_checkpoint(tmp_path / "a.pt")
    resumed = make(overflowing(Regression()))
    resumed.load_checkpoint(saved)
    resumed.train()
    assert resumed.optimizer.param_groups[0]["fused"]
    assert resumed.state.progress.skipped_windows == 1
    assert all(weight.isfinite().all() for weight in weights_of(resumed.model))


def test_with_dampening_it_runs_unfused_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = make(Regression(), sgd={"dampening": 0.5})
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "its steps run unfused" in caplog.text
    assert not trainer.optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize(
    "sgd",
    [{"fused": False}, {"momentum": 0.0}],
    ids=["not fused", "no momentum"],
)
def test_any_other_sgd_is_left_alone(sgd: dict[str, Any]) -> None:
    options = {"lr": 0.1, "momentum": 0.9, "fused": True, **sgd}
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], **options)
    prepare_momentum(optimizer)
    assert not optimizer.state
