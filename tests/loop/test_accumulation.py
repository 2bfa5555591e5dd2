"""Accumulation: any split of a batch gives the gradient of the whole batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy import (
    Recorder,
    Regression,
    assert_equal_weights,
    make_trainer,
    regression_batches,
    weights_of,
)

from training import Callback, ConfigError, DataError, Trainer

SPLITS = [
    pytest.param([8], id="1 x 8"),
    pytest.param([4, 4], id="2 x 4"),
    pytest.param([2, 2, 2, 2], id="4 x 2"),
    pytest.param([3, 5], id="3 + 5"),
    pytest.param([1, 6, 1], id="1 + 6 + 1"),
]


class KeepGradients(Callback):
    """Copies the gradients that the optimizer is about to see."""

    def __init__(self) -> None:
        self.windows: list[list[Tensor]] = []

    def on_before_step(self, trainer: Trainer) -> None:
        self.windows.append(
            [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
        )


def gradients(batches: list[Any], accumulation: int, **options: Any) -> list[Tensor]:
    """Return the gradients of the first window of a fresh model."""
    keep = KeepGradients()
    make_trainer(
        Regression(),
        batches,
        keep,
        gradient_accumulation_steps=accumulation,
        **options,
    ).train()
    return keep.windows[0]


def assert_close(left: list[Tensor], right: list[Tensor], tolerance: float) -> None:
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance)


def split(sizes: list[int]) -> list[Any]:
    x, y = regression_batches(1, sum(sizes))[0]
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


@pytest.mark.parametrize("sizes", SPLITS)
def test_sample_weighted_splits_give_the_gradient_of_one_batch(
    sizes: list[int],
) -> None:
    whole = gradients(split([8]), 1)
    assert_close(gradients(split(sizes), len(sizes)), whole, 1e-6)


def masked_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Mean over the rows that a mask keeps, as a token mean over labels is."""
    x, y, keep = batch
    error = (model.layers(x) - y).square().squeeze(1)
    count = keep.sum()
    return {"loss": (error * keep).sum() / count, "weight": count}


def summed_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    x, y, keep = batch
    error = (model.layers(x) - y).square().squeeze(1)
    return {"loss_sum": (error * keep).sum(), "weight": keep.sum()}


def masked(sizes: list[int], keep: list[bool]) -> list[Any]:
    x, y = regression_batches(1, sum(sizes))[0]
    mask = torch.tensor(keep, dtype=torch.float32)
    return list(zip(x.split(sizes), y.split(sizes), mask.split(sizes), strict=True))


@pytest.mark.parametrize("step", [masked_step, summed_step])
@pytest.mark.parametrize("sizes", SPLITS)
def test_a_step_function_says_the_weight_of_its_mean(
    sizes: list[int], step: Any
) -> None:
    keep = [True, False, True, True, True, False, False, True]
    whole = gradients(masked([8], keep), 1, step_fn=masked_step)
    parts = gradients(masked(sizes, keep), len(sizes), step_fn=step)
    assert_close(parts, whole, 1e-6)


def test_means_of_means_would_fail_the_same_comparison() -> None:
    """The negative control: without weights the ragged split is plainly different."""
    keep = [True, False, False, True, True, True, True, True]

    def unweighted(model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = masked_step(model, batch)["loss"]
        return loss

    whole = gradients(masked([8], keep), 1, step_fn=masked_step)
    parts = gradients(masked([3, 5], keep), 2, step_fn=unweighted, loss_per="samples")
    assert not torch.allclose(parts[0], whole[0], rtol=0, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    data=st.data(),
)
def test_any_sizes_weights_and_windows_match_one_batch(
    sizes: list[int], data: st.DataObject
) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes)))
    keep[0] = True
    whole = gradients(masked([sum(sizes)], keep), 1, step_fn=masked_step)
    parts = gradients(masked(sizes, keep), len(sizes), step_fn=masked_step)
    assert_close(parts, whole, 1e-6)


class UnitGradient(nn.Module):
    """Its loss is its only parameter, so that every true mean gradient is 1.0."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.p * 1.0


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_partial_last_window_is_stepped_with_its_own_weight(num_epochs: int) -> None:
    keep = KeepGradients()
    trainer = make_trainer(
        UnitGradient(),
        [torch.zeros(2, 1)] * 5,
        keep,
        gradient_accumulation_steps=4,
        num_epochs=num_epochs,
        loss_per="samples",  # its gradient is 1 whatever the batch: it tells nothing
    )
    trainer.train()
    assert trainer.steps_per_epoch == 2
    assert trainer.step == trainer.total_steps == 2 * num_epochs
    assert [window[0].item() for window in keep.windows] == [1.0] * 2 * num_epochs


class WithoutLength:
    """A re-iterable that does not know its length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


def test_a_loader_without_a_length_gives_the_same_weights() -> None:
    results = []
    for loader in (regression_batches(5), WithoutLength(regression_batches(5))):
        trainer = make_trainer(
            Regression(), loader, gradient_accumulation_steps=2, num_epochs=2
        )
        trainer.train()
        assert trainer.step == 6
        results.append(weights_of(trainer.model))
    assert_close(results[0], results[1], 0.0)
    assert make_trainer(None, WithoutLength([])).total_steps is None


def test_a_window_of_weight_zero_changes_nothing_and_is_counted() -> None:
    model = Regression()
    before = weights_of(model)
    trainer = make_trainer(
        model, masked([2, 2], [False] * 4), step_fn=masked_step, num_epochs=1
    )
    trainer.train()
    assert_close(weights_of(model), before, 0.0)
    assert (trainer.step, trainer.update) == (2, 0)
    assert trainer.state.progress.skipped_windows == 2
    assert trainer.state.progress.nonfinite_windows == 0


def test_a_batch_of_weight_zero_does_not_spoil_its_window() -> None:
    keep = [True, True, False, False]
    whole = gradients(masked([4], keep), 1, step_fn=masked_step)
    parts = gradients(masked([2, 2], keep), 2, step_fn=masked_step)
    assert_close(parts, whole, 1e-6)


def test_the_epoch_loss_is_the_weighted_mean_of_its_batches() -> None:
    keep = [True, False, True, True, True, True, False, True]
    trainer = make_trainer(
        Regression(), masked([3, 5], keep), lr=0.0, step_fn=masked_step
    )
    trainer.train()
    with torch.no_grad():
        whole = masked_step(trainer.model, masked([8], keep)[0])["loss"].item()
    assert math.isclose(trainer.history[0]["train_loss"], whole, rel_tol=1e-6)


def test_clipping_sees_the_corrected_gradient_and_reports_the_norm_before() -> None:
    recorder, keep = Recorder(), KeepGradients()
    make_trainer(
        UnitGradient(),
        [torch.zeros(2, 1), torch.zeros(1, 1)],
        recorder,
        keep,
        gradient_accumulation_steps=4,
        max_grad_norm=0.25,
        loss_per="samples",
        lr=1.0,
    ).train()
    assert recorder.logs[0]["grad_norm"] == pytest.approx(1.0)


@pytest.mark.parametrize("max_grad_norm", [None, 0, 0.0])
def test_no_clipping_computes_no_norm_and_keeps_gradients(
    max_grad_norm: float | None,
) -> None:
    recorder = Recorder()
    model = UnitGradient()
    make_trainer(
        model,
        [torch.zeros(2, 1)],
        recorder,
        max_grad_norm=max_grad_norm,
        lr=1.0,
    ).train()
    assert model.p.item() == -1.0
    assert "grad_norm" not in recorder.logs[0]


@pytest.mark.parametrize("cleared", ["model", "optimizer"])
def test_a_step_fn_that_clears_the_gradients_of_its_window_is_refused(
    cleared: str,
) -> None:
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(model: nn.Module, batch: Any) -> Any:
        (model if cleared == "model" else optimizer).zero_grad()
        return model(*batch)["loss"]

    def trainer(accumulation: int) -> Trainer:
        return Trainer(
            model,
            regression_batches(4, 2),
            optimizer=optimizer,
            step_fn=step,
            device="cpu",
            gradient_accumulation_steps=accumulation,
        )

    trainer(1).train()  # a window of one batch has none to lose
    refused = trainer(2)
    told = r"step_fn cleared the gradients .*leave that out"
    with pytest.raises(ConfigError, match=told):
        refused.train()
    assert refused.step == 0


class AddsUpElsewhere(torch.optim.SGD):
    """Adds gradients up beside ``grad``, as for bf16; ``zero_grad`` forgets them."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.own = self.param_groups[0]["params"]
        self.sums = [torch.full_like(p, 100.0) for p in self.own]
        for parameter, total in zip(self.own, self.sums, strict=True):
            parameter.register_post_accumulate_grad_hook(partial(add_to, total))

    def step(self, closure: Any = None) -> Any:
        for parameter, total in zip(self.own, self.sums, strict=True):
            parameter.grad = total.clone()
        return super().step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for total in self.sums:
            total.zero_()


def add_to(total: Tensor, parameter: Tensor) -> None:
    assert parameter.grad is not None
    total += parameter.grad
    parameter.grad = None


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["kernel's own", "of a plugin"])
def test_an_optimizer_that_keeps_gradients_elsewhere_forgets_them_with_each_window(
    accumulation: int, kind: str
) -> None:
    class Chooses(Callback):
        hook_api = ">=1.1,<2"

        def make_window(self, default: Any) -> Any:
            return None if kind == "kernel's own" else default

    models, batches = [Regression(), Regression()], regression_batches(6, 2)
    batches[1] = (batches[1][0], batches[1][1] * math.nan)  # its window is dropped
    for model, make in zip(models, (torch.optim.SGD, AddsUpElsewhere), strict=True):
        Trainer(
            model,
            batches,
            optimizer=make(model.parameters(), lr=0.1),
            gradient_accumulation_steps=accumulation,
            nonfinite="skip",
            callbacks=[Chooses()],
            device="cpu",
        ).train()
    assert_equal_weights(models[1], models[0])


class LooksAtAll(torch.optim.SGD):
    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad.zero_()


class NeedsToBeTold(torch.optim.SGD):
    def zero_grad(self, set_to_none: bool) -> None:  # type: ignore[override]
        super().zero_grad(set_to_none)


@pytest.mark.parametrize("kind", [LooksAtAll, NeedsToBeTold])
def test_a_zero_grad_that_fails_without_gradients_is_refused_before_a_step(
    kind: Any,
) -> None:
    trainer = built(kind)
    told = rf"zero_grad\(\) of {kind.__name__} fails .*(NoneType|set_to_none).*; let it"
    with pytest.raises(ConfigError, match=told):
        trainer.train()
    assert trainer.step == 0


class Counts(torch.optim.SGD):
    """Counts the gradients that its ``zero_grad`` finds."""

    found = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.found += sum(p.grad is not None for p in self.param_groups[0]["params"])
        super().zero_grad(set_to_none)


def test_the_zero_grad_of_an_optimizer_finds_the_gradients_that_it_forgets() -> None:
    trainer = built(Counts)
    trainer.train()
    each = len(list(trainer.model.parameters()))
    assert trainer.optimizer.found == each * trainer.update  # type: ignore[attr-defined]


def built(kind: Any) -> Trainer:
    model = Regression()
    optimizer = kind(model.parameters(), lr=0.1)
    batches = regression_batches(4, 2)
    return Trainer(model, batches, optimizer=optimizer, device="cpu")


def test_a_loader_that_is_exhausted_after_an_epoch_is_told_with_the_next_one() -> None:
    batches = iter(regression_batches())

    class Once:
        def __iter__(self) -> Iterator[Any]:
            yield from batches

    trainer = make_trainer(None, Once(), num_epochs=3)
    with pytest.raises(DataError, match=r"in epoch 2 after it .* each time that it is"):
        trainer.train()
    assert (trainer.epoch, trainer.step) == (1, 4)
