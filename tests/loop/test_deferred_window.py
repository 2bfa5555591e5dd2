"""Where reads wait, the device guards the weights, and the host learns of it later."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy import (
    Overflow,
    Recorder,
    Regression,
    SavesAt,
    SpoilsGradient,
    assert_equal_weights,
    regression_batches,
    weights_are_finite,
)

from training import Callback, NonFiniteError, Trainer
from training.hardware.readback import LateFlag, Readback
from training.loop.deferred_window import NotedWindow, UnreadWindow
from training.loop.progress import Progress

PRECISIONS = ["fp32", "bf16", "fp16"]


@pytest.fixture(autouse=True)
def reads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a CPU be treated as a device that is slow to answer."""
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda device: True)


@pytest.fixture(params=["early", "late"])
def answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let answers be there at once, or only when somebody waits for them."""
    if request.param == "late":
        monkeypatch.setattr(Readback, "is_here", property(lambda self: False))
    return str(request.param)


class Spoilt(nn.Module):
    """Returns a bad loss, or a finite loss with a bad gradient, on some calls."""

    def __init__(self, kind: str, *calls: int) -> None:
        super().__init__()
        self.inner = Regression()
        self.kind, self.bad_calls, self.calls = kind, calls, 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.inner(x, y)["loss"]
        self.calls += 1
        if self.calls not in self.bad_calls:
            return loss
        if self.kind == "bad gradient":  # sqrt at 0: value 0, gradient infinite
            return loss + (self.inner.layers[0].weight.sum() * 0.0).abs().sqrt()
        if self.kind == "bad loss, good gradient":
            return loss + math.inf
        return loss * math.nan


def trainer_of(model: nn.Module, *callbacks: Any, **options: Any) -> Trainer:
    options.setdefault("optimizer", torch.optim.AdamW)
    options.setdefault("loss_per", "samples")  # ``Spoilt`` counts its calls
    optimizer = options.pop("optimizer")(model.parameters(), lr=0.01, fused=True)
    return Trainer(
        model=model,
        train_dataloader=options.pop("batches", regression_batches(8)),
        optimizer=optimizer,
        callbacks=callbacks,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm", [None, 1.0], ids=["no clipping", "clipping"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_without_reads_ends_in_the_weights_of_one_with_reads(
    precision: str,
    norm: float | None,
    accumulation: int,
    answers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = []
    for waits in (True, False):
        monkeypatch.setattr(
            "training.hardware.readback.reads_wait", lambda device, w=waits: w
        )
        recorder = Recorder()
        trainer = trainer_of(
            Regression(),
            recorder,
            precision=precision,
            max_grad_norm=norm,
            gradient_accumulation_steps=accumulation,
            num_epochs=2,
        )
        trainer.train()
        assert isinstance(trainer._run.window, UnreadWindow) == waits
        runs.append((trainer, [dict(logs) for logs in recorder.logs]))
    (left, left_logs), (right, right_logs) = runs
    assert_equal_weights(left.model, right.model)
    assert (left.step, left.update) == (right.step, right.update)
    assert left.state.progress.skipped_windows == right.state.progress.skipped_windows
    for a, b in zip(left_logs, right_logs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)


@pytest.mark.parametrize(
    "kind", ["bad loss", "bad loss, good gradient", "bad gradient"]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", [None, 1.0], ids=["no clipping", "clipping"])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_bad_value_never_reaches_the_weights_however_late_it_is_learnt_of(
    kind: str, precision: str, norm: float | None, optimizer: Any, answers: str
) -> None:
    good = Regression()
    trainer_of(
        good,
        precision=precision,
        max_grad_norm=norm,
        optimizer=optimizer,
        batches=regression_batches(8)[:2],
    ).train()
    model = Spoilt(kind, 3)
    trainer = trainer_of(
        model, precision=precision, max_grad_norm=norm, optimizer=optimizer
    )
    with pytest.raises(NonFiniteError, match="left the weights alone"):
        trainer.train()
    assert (trainer.step, trainer.update) == (2, 2)
    assert_equal_weights(model, good)


class Falls(Callback):
    """Moves the rate after each step, and keeps the counters of that moment."""

    def __init__(self) -> None:
        self.after: list[Progress] = []

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.optimizer.param_groups[0]["lr"] *= 0.5
        self.after.append(replace(trainer.state.progress))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["bad loss", "bad gradient"])
def test_after_a_bad_value_all_counters_are_those_from_before_it(
    kind: str, accumulation: int, answers: str
) -> None:
    falls = Falls()
    trainer = trainer_of(
        Spoilt(kind, 1 + 3 * accumulation),
        falls,
        batches=regression_batches(16),
        gradient_accumulation_steps=accumulation,
    )
    with pytest.raises(NonFiniteError):
        trainer.train()
    # The third window was the last good one; the host was some windows ahead.
    assert trainer.state.progress.state_dict() == {
        **falls.after[2].state_dict(),
        "update": 3,
    }
    assert (trainer.step, trainer.batches_seen) == (3, 3 * accumulation)
    assert math.isfinite(trainer.state.progress.loss_sum)


def test_without_the_guard_the_bad_value_does_reach_them(answers: str) -> None:
    """What the claim above is worth: the same run, the optimizer not told."""
    model = Spoilt("bad loss", 3)
    trainer = trainer_of(model)

    class Deaf(Callback):
        def on_epoch_begin(self, trainer: Trainer) -> None:
            step = trainer.optimizer.step

            def untold(*arguments: Any) -> Any:
                trainer.optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
                return step(*arguments)

            trainer.optimizer.step = untold  # type: ignore[method-assign]

    trainer.bus.register(Deaf())
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert not weights_are_finite(model)


@pytest.mark.parametrize("kind", ["bad loss", "bad loss, good gradient"])
def test_under_fp16_a_bad_loss_is_not_taken_for_an_overflow(
    kind: str, answers: str
) -> None:
    model = Spoilt(kind, 5)
    trainer = trainer_of(model, precision="fp16")
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert trainer.step == 4
    assert weights_are_finite(model)


class Verdicts(Callback):
    """Keeps what each step was announced as."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.updates: list[int] = []

    def on_step_end(self, trainer: Trainer, applied: bool) -> None:
        self.given.append(applied)
        self.updates.append(trainer.update)


@pytest.mark.parametrize("norm", [None, 1.0], ids=["no clipping", "clipping"])
def test_an_overflow_is_known_to_whoever_looks(
    norm: float | None, answers: str
) -> None:
    verdicts = Verdicts()
    trainer = trainer_of(
        Regression(), verdicts, Overflow(1, 3), precision="fp16", max_grad_norm=norm
    )
    trainer.train()
    assert isinstance(verdicts.given[0], LateFlag)
    applied = [bool(given) for given in verdicts.given]
    assert applied == [False, True, False, True, True, True, True, True]
    assert verdicts.updates == [0, 1, 1, 2, 3, 4, 5, 6]
    assert (trainer.update, trainer.state.progress.skipped_windows) == (6, 2)
    assert trainer.grad_scaler is not None
    assert trainer.grad_scaler.get_scale() == 65536.0 / 4


def test_a_gradient_that_no_scale_mends_ends_the_run(answers: str) -> None:
    trainer = trainer_of(
        Regression(),
        Overflow(*range(1, 100)),
        precision="fp16",
        batches=regression_batches(40),
    )
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert trainer.step == 16  # 65536 is 2 to the 16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_plugin_spoils_never_reaches_the_weights(
    precision: str, answers: str
) -> None:
    model = Regression()
    trainer = trainer_of(model, SpoilsGradient(4), precision=precision)
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert trainer.step == 4
    assert weights_are_finite(model)


def test_the_host_is_never_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readback, "is_here", property(lambda self: False))
    model = Spoilt("bad loss", 3)
    trainer = trainer_of(model, batches=regression_batches(100))
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert model.calls == 3 + 16


@pytest.mark.parametrize(
    ("fused", "nonfinite"),
    [
        pytest.param(False, "stop", id="an optimizer that cannot be told"),
        pytest.param(True, "skip", id="a policy that must know at once"),
    ],
)
def test_elsewhere_it_is_read_once_a_window(fused: bool, nonfinite: str) -> None:
    model = Spoilt("bad loss", 3)
    trainer = Trainer(
        model=model,
        train_dataloader=regression_batches(4),
        optimizer=torch.optim.AdamW(model.parameters(), fused=fused),
        nonfinite=nonfinite,
        loss_per="samples",
        device="cpu",
    )
    if nonfinite == "stop":
        with pytest.raises(NonFiniteError):
            trainer.train()
    else:
        trainer.train()
        assert (trainer.update, trainer.state.progress.nonfinite_windows) == (3, 1)
    assert type(trainer._run.window) is NotedWindow
    assert weights_are_finite(model)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read, from when it is entered."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Touches(Callback):
    """Listens before the step."""

    def on_before_step(self) -> None:
        pass


@pytest.mark.parametrize("norm", [None, 1.0], ids=["no clipping", "clipping"])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 1)], ids=["even", "uneven"])
@pytest.mark.parametrize(
    ("listeners", "reads"),
    [
        pytest.param([], 1, id="alone"),
        # It must not be called on gradients that are not finite, nor spoil them.
        pytest.param([Touches()], 2, id="with a listener before the step"),
    ],
)
def test_an_optimizer_that_is_not_fused_is_waited_for_once_a_step(
    norm: float | None,
    sizes: tuple[int, ...],
    listeners: list[Any],
    reads: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, counted = Regression(), Reads()

    def batches() -> Any:  # not read ahead
        for number in range(8):
            if number == 2:
                counted.__enter__()
            yield regression_batches(1, sizes[number % 2])[0]
        counted.__exit__(None, None, None)

    class Loader:
        def __iter__(self) -> Any:
            return batches()

    with caplog.at_level(logging.WARNING):
        Trainer(
            model=model,
            train_dataloader=Loader(),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            gradient_accumulation_steps=2,
            max_grad_norm=norm,
            callbacks=listeners,
            loss_per="samples",
            device="cpu",
        ).train()
    assert counted.number == 3 * reads
    said = "SGD is not fused; build it with fused=True"
    assert caplog.text.count(said) == 1


def test_of_a_fused_optimizer_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer_of(Regression()).train()
    assert "waits" not in caplog.text


def test_a_checkpoint_waits_for_the_attempts_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(Readback, "is_here", property(lambda self: False))

    saves = SavesAt(4, tmp_path / "a.pt")
    trainer_of(Regression(), saves, precision="bf16").train()
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (saved["progress"]["step"], saved["progress"]["update"]) == (4, 4)
    with pytest.raises(NonFiniteError):
        trainer_of(Spoilt("bad loss", 3), saves).train()
