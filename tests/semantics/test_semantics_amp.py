"""Mixed precision: what a skipped step moves, and what it must leave alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from toy import (
    DEVICES,
    Overflow,
    Recorder,
    Regression,
    SpoilsGradient,
    assert_equal_weights,
    groups_of,
    make_trainer,
    regression_batches,
    weights_are_finite,
    weights_of,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, NonFiniteError, Trainer
from training.loop.deferred_window import NotedWindow
from training.loop.forward import make_forward
from training.loop.precision import Precision

KINDS = [pytest.param(False, id="plain"), pytest.param(True, id="fused")]


def fp16_trainer(
    *callbacks: Any, fused: bool = False, batches: int = 6, **options: Any
) -> Trainer:
    device = options.setdefault("device", "cpu")
    model = Regression().to(device)
    optimizer = torch.optim.AdamW(groups_of(model, 0.01, 0.001), fused=fused)
    scheduler = options.pop("scheduler", None)
    return Trainer(
        model=model,
        train_dataloader=regression_batches(batches),
        optimizer=optimizer,
        scheduler=scheduler and scheduler(optimizer),
        callbacks=list(callbacks),
        fp16=True,
        **options,
    )


def tenths(optimizer: Any) -> LambdaLR:
    """Return a schedule whose factor counts its advances: 1, 0.9, 0.8 ..."""
    return LambdaLR(optimizer, lambda advances: 1.0 - advances / 10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fused", KINDS)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0], ids=["no unscale", "unscale"])
def test_a_schedule_advances_on_applied_updates_only(
    fused: bool, max_grad_norm: float | None, device: str
) -> None:
    recorder = Recorder()
    trainer = fp16_trainer(
        recorder,
        Overflow(1, 4),
        LearningRateSchedulerCallback(type="linear"),
        fused=fused,
        max_grad_norm=max_grad_norm,
        device=device,
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (6, 4)
    used = [logs["lr"] for logs in recorder.logs]
    advances = [0, 0, 1, 2, 2, 3]  # 1 and 4 were skipped
    assert used == pytest.approx([0.01 * (1 - n / 6) for n in advances])
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.01 * (1 - 4 / 6), 0.001 * (1 - 4 / 6)])


def test_a_scheduler_object_per_step_advances_on_applied_updates_only() -> None:
    trainer = fp16_trainer(scheduler=tenths)
    callback = LearningRateSchedulerCallback(trainer.scheduler, interval="step")
    again = Trainer(
        model=trainer.model,
        train_dataloader=regression_batches(6),
        optimizer=trainer.optimizer,
        scheduler=trainer.scheduler,
        callbacks=[callback, Overflow(1, 2, 6)],
        fp16=True,
        device="cpu",
    )
    again.train()
    assert again.update == again.scheduler.last_epoch == 3


@pytest.mark.parametrize(
    ("overflows", "factor"),
    [
        pytest.param([], 0.8, id="two epochs, two advances"),
        pytest.param([1, 2], 0.8, id="some skipped steps do not matter"),
        pytest.param([1, 2, 3], 0.9, id="an epoch without an update is no advance"),
    ],
)
def test_a_schedule_per_epoch_advances_after_epochs_with_an_update(
    overflows: list[int], factor: float
) -> None:
    trainer = fp16_trainer(
        Overflow(*overflows), scheduler=tenths, batches=3, num_epochs=2
    )
    trainer.train()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.01 * factor, 0.001 * factor])


@pytest.mark.parametrize("fused", KINDS)
def test_a_skipped_step_moves_neither_weights_nor_moments(fused: bool) -> None:
    trainer = fp16_trainer(Overflow(1, 2), fused=fused, batches=2)
    before = weights_of(trainer.model)
    trainer.train()
    assert_equal_weights(trainer.model, before)
    moments = [s["exp_avg"] for s in trainer.optimizer.state.values() if "exp_avg" in s]
    assert all(not moment.any() for moment in moments)


@pytest.mark.parametrize("fused", KINDS)
def test_an_accumulated_window_overflows_as_a_whole(fused: bool) -> None:
    trainer = fp16_trainer(
        Overflow(2), fused=fused, batches=5, gradient_accumulation_steps=2
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (3, 2)
    assert trainer.grad_scaler is not None
    assert trainer.grad_scaler.get_scale() == 65536.0 / 2


@pytest.mark.parametrize("fused", KINDS)
def test_fp16_windows_of_unequal_weight_have_the_gradient_of_one_batch(
    fused: bool,
) -> None:
    class Keep(Callback):
        def on_before_step(self, trainer: Trainer) -> None:
            grads = [p.grad.clone() for p in trainer.model.parameters()]
            if all(bool(torch.isfinite(grad).all()) for grad in grads):
                kept[-1].append(grads)  # the first windows may overflow for real

    kept: list[list[list[Tensor]]] = []
    x, y = regression_batches(1, 8)[0]
    for sizes in ([8], [3, 5]):
        kept.append([])
        model = Regression()
        Trainer(
            model=model,
            train_dataloader=list(zip(x.split(sizes), y.split(sizes), strict=True)),
            optimizer=torch.optim.AdamW(model.parameters(), lr=0.0, fused=fused),
            callbacks=[Keep()],
            fp16=True,
            gradient_accumulation_steps=len(sizes),
            num_epochs=4,
            device="cpu",
        ).train()
    for a, b in zip(kept[0][0], kept[1][0], strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=2e-3)  # fp16 has 11 bits


# Values that no scale mends ----------------------------------


class Poisoned(nn.Module):
    """Returns a bad loss from some call on; its gradients may be finite."""

    def __init__(self, call: int, value: float, touches_gradient: bool) -> None:
        super().__init__()
        self.inner = Regression()
        self.call, self.value, self.calls = call, value, 0
        self.touches_gradient = touches_gradient

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.inner(x, y)["loss"]
        self.calls += 1
        if self.calls < self.call:
            return loss
        return loss * self.value if self.touches_gradient else loss + self.value


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "touches_gradient", [True, False], ids=["bad gradient", "good gradient"]
)
def test_a_bad_loss_ends_the_run_in_every_precision(
    precision: str, value: float, touches_gradient: bool, device: str
) -> None:
    model = Poisoned(3, value, touches_gradient)
    options = {"precision": precision, "device": device, "lr": 1e-3}
    trainer = make_trainer(model, loss_per="samples", **options)  # it counts calls
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert trainer.step == 2
    assert weights_are_finite(model)


@pytest.mark.parametrize("touches_gradient", [True, False])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_where_reads_wait_a_bad_loss_is_found_before_the_scaled_step(
    policy: str, touches_gradient: bool
) -> None:
    """The path of a GPU, whose losses are looked at once a window."""
    model = Poisoned(1, math.nan, touches_gradient)
    precision = Precision("fp16", torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    window = NotedWindow(
        model, optimizer, make_forward(None, None), precision, nonfinite=policy
    )
    before = weights_of(model)
    window.backward(regression_batches(1)[0], 2.0)
    if policy == "stop":
        with pytest.raises(NonFiniteError, match="the loss is NaN or infinite"):
            window.step()
    else:
        result = window.step()
        assert (result.applied, result.nonfinite) == (False, True)
    assert_equal_weights(model, before)


@pytest.mark.parametrize("fused", KINDS)
def test_a_gradient_that_no_scale_mends_ends_the_run(fused: bool) -> None:
    """A NaN halves the scale for ever in a loop that takes it for an overflow."""
    trainer = fp16_trainer(Overflow(*range(1, 100)), fused=fused, batches=50)
    with pytest.raises(NonFiniteError, match="even at a loss scale of 1"):
        trainer.train()
    assert trainer.step == 16  # 65536 is 2 to the 16


def test_under_policy_skip_it_is_counted_as_not_finite_from_there_on() -> None:
    trainer = fp16_trainer(
        Overflow(*range(1, 100)), batches=20, nonfinite="skip", num_epochs=1
    )
    trainer.train()
    assert trainer.state.progress.skipped_windows == 20
    assert trainer.state.progress.nonfinite_windows == 4


def test_bf16_has_no_scaler_and_its_overflow_is_not_a_skip() -> None:
    trainer = make_trainer(None, None, Overflow(2), precision="bf16")
    assert trainer.grad_scaler is None
    with pytest.raises(NonFiniteError, match="a gradient is NaN or infinite"):
        trainer.train()


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("fused", KINDS)
def test_what_a_plugin_spoils_after_unscaling_never_reaches_the_weights(
    fused: bool, policy: str
) -> None:
    """The scaler has looked before the plugin did it."""

    trainer = fp16_trainer(SpoilsGradient(3), fused=fused, nonfinite=policy)
    if policy == "stop":
        with pytest.raises(NonFiniteError, match="a plugin made a gradient NaN"):
            trainer.train()
        assert trainer.step == 3
    else:
        trainer.train()
        assert (trainer.step, trainer.state.progress.nonfinite_windows) == (6, 1)
        assert trainer.update == 6 - trainer.state.progress.skipped_windows
    assert weights_are_finite(trainer.model)


@pytest.mark.parametrize("fused", KINDS)
def test_many_bad_windows_leave_a_scale_that_good_ones_learn_at(fused: bool) -> None:
    """Halved without a floor the scale would reach 0: no update would mean anything."""
    trainer = fp16_trainer(
        Overflow(*range(1, 201)), fused=fused, batches=220, nonfinite="skip"
    )
    before = weights_of(trainer.model)
    trainer.train()
    assert trainer.update == 20
    assert trainer.grad_scaler is not None
    assert trainer.grad_scaler.get_scale() == 1.0
    for a, b in zip(weights_of(trainer.model), before, strict=True):
        assert torch.isfinite(a).all()
        assert not torch.equal(a, b)


def test_a_scale_that_grows_is_no_skip() -> None:
    trainer = fp16_trainer(batches=8)
    assert trainer.grad_scaler is not None
    trainer.grad_scaler.set_growth_interval(2)
    trainer.grad_scaler.load_state_dict(
        {**trainer.grad_scaler.state_dict(), "scale": 256.0}
    )
    trainer.train()
    assert trainer.grad_scaler.get_scale() == 256.0 * 2**4
    assert (trainer.step, trainer.update) == (8, 8)


@pytest.mark.parametrize("max_grad_norm", [None, 1.0], ids=["no unscale", "unscale"])
def test_a_skip_is_known_where_nobody_listens_before_the_step(
    max_grad_norm: float | None,
) -> None:
    trainer = fp16_trainer(Overflow(1, 4), max_grad_norm=max_grad_norm)
    assert trainer.bus.on_before_step is None
    trainer.train()
    assert (trainer.step, trainer.update) == (6, 4)


def test_finite_gradients_of_an_infinite_norm_are_no_update() -> None:
    """Clipping would turn them into zeros, and call that an update."""

    class Huge(Callback):
        def on_before_step(self, trainer: Trainer) -> None:
            for parameter in trainer.model.parameters():
                parameter.grad.fill_(1e30)  # type: ignore[union-attr]

    with pytest.raises(NonFiniteError, match="a gradient is NaN or infinite"):
        make_trainer(None, None, Huge(), max_grad_norm=1.0).train()


class Bypassed(nn.Module):
    """On some calls its loss is of what the optimizer does not have."""

    def __init__(self, *calls: int) -> None:
        super().__init__()
        self.inner, self.other = Regression(), nn.Parameter(torch.ones(()))
        self.at, self.calls = calls, 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        inner: Tensor = self.inner(x, y)["loss"] * 0.01  # which overflows at no scale
        return self.other * 1.0 if self.calls in self.at else inner


class Empties(Callback):
    """Takes all parameters out of the optimizer for an epoch."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        group = trainer.optimizer.param_groups[0]
        if trainer.epoch == 1:
            self.own, group["params"] = group["params"], []
        if trainer.epoch == 2:
            group["params"] = self.own


@pytest.fixture(params=[False, True], ids=["reads cost nothing", "reads wait"])
def waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    reads_wait = "training.hardware.readback.reads_wait"
    monkeypatch.setattr(reads_wait, lambda device: request.param)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("fused", KINDS)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0], ids=["no unscale", "unscale"])
@pytest.mark.parametrize("listens", [False, True])
def test_a_window_without_a_gradient_leaves_the_loss_scale_alone(
    fused: bool, max_grad_norm: float | None, listens: bool
) -> None:
    model = Bypassed(2, 4)
    trainer = Trainer(
        model,
        regression_batches(4),
        optimizer=torch.optim.AdamW(model.inner.parameters(), lr=0.1, fused=fused),
        callbacks=[SpoilsGradient(-1)] if listens else [],
        precision="fp16",
        max_grad_norm=max_grad_norm,
        loss_per="samples",  # it counts calls
        device="cpu",
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (4, 4)  # as in fp32
    assert trainer.grad_scaler is not None
    state = trainer.grad_scaler.state_dict()
    assert (state["scale"], state["_growth_tracker"]) == (65536.0, 2)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("fused", KINDS)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0], ids=["no unscale", "unscale"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_goes_on_while_the_optimizer_has_no_parameter(
    fused: bool, max_grad_norm: float | None, precision: str
) -> None:
    model = Bypassed()
    trainer = Trainer(
        model,
        regression_batches(4),
        optimizer=torch.optim.AdamW(model.inner.parameters(), lr=0.1, fused=fused),
        callbacks=[Empties()],
        precision=precision,
        max_grad_norm=max_grad_norm,
        num_epochs=3,
        device="cpu",
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (12, 12)
