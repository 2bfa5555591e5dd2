"""The short way of a window of one batch ends, to the bit, as that of any window."""

from __future__ import annotations

import math
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import (
    Regression,
    SpoilsGradient,
    assert_equal_weights,
    make_trainer,
    regression_batches,
)

from training import Callback, NonFiniteError, Trainer
from training.loop.single_window import SingleWindow
from training.plugin import Window

#: Of unequal sizes, so that a weight that is wrong shows.
BATCHES = [regression_batches(1, size)[0] for size in (2, 5, 3, 1, 4, 2, 6)]


class AnyWindow(Callback):
    """Makes the window go the long way."""

    hook_api = ">=1.1,<2"

    def make_window(self) -> type[Window]:
        """Return the kernel's own, of any number of batches."""
        return Window


class Hears(Callback):
    """Keeps the logs of each step, and what became of it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_step_end(self, logs: Any, applied: bool) -> None:
        """Keep them, NaN as text."""
        self.seen.append((repr(dict(logs)), bool(applied)))


class Halves(Callback):
    """Changes what the optimizer is given."""

    def on_before_step(self, trainer: Trainer) -> None:
        """Halve the gradients."""
        for parameter in trainer.model.parameters():
            assert parameter.grad is not None
            parameter.grad *= 0.5


class Joins(Callback):
    """Adds a group of parameters to the optimizer after the second step."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Add it, with a momentum of its own."""
        if trainer.step == 2:
            last = list(trainer.model.layers[3].parameters())
            trainer.optimizer.add_param_group({"params": last, "momentum": 0.5})


class Spoilt(Regression):
    """Its loss, or its gradient, is bad on the third call."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.calls = what, 0

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the loss."""
        self.calls += 1
        loss = super().forward(x, y)["loss"]
        if self.calls == 3:  # the root of 0 has a value and no slope
            loss = loss * math.nan if self.what == "loss" else loss + (loss * 0).sqrt()
        return {"loss": loss}


def told(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return a loss with a part, that counts for nothing in batches of three rows."""
    loss = model(*batch)["loss"]
    size = len(batch[0])
    weight = 0 if size == 3 else size
    return {"loss": loss, "weight": weight, "half": loss.detach() / 2, "one": 1.0}


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "clipped": {"max_grad_norm": 0.05},
    "hooked": {"callbacks": [Halves]},
    "hooked, clipped": {"callbacks": [Halves], "max_grad_norm": 0.05},
    "parts, no weight": {"step_fn": told},
    "a sum": {"loss_per": "sum"},
    "a bad loss": {"model": "loss", "nonfinite": "skip"},
    "a bad gradient": {"model": "gradient", "nonfinite": "skip"},
    "a bad gradient, clipped": {
        "model": "gradient",
        "nonfinite": "skip",
        "max_grad_norm": 0.05,
    },
    "a plugin's bad gradient": {
        "callbacks": [partial(SpoilsGradient, 2)],
        "nonfinite": "skip",
    },
    "a group that joins": {"callbacks": [Joins], "joins": True},
}


def run(*callbacks: Callback, **how: Any) -> Trainer:
    """Return a trainer that has trained."""
    kinds, what, joins = (how.pop(n, ()) for n in ("callbacks", "model", "joins"))
    model = Spoilt(what) if what else Regression()
    trained = model.layers[0] if joins else model
    trainer = Trainer(
        model,
        BATCHES,
        optimizer=torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9),
        callbacks=[*callbacks, *(kind() for kind in kinds)],
        device="cpu",
        **{"num_epochs": 2, "loss_per": None if "step_fn" in how else "samples", **how},
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_by_the_short_way_is_that_by_the_long_one_to_the_bit(name: str) -> None:
    heard = Hears(), Hears()
    short = run(heard[0], **CASES[name])
    long = run(heard[1], AnyWindow(), **CASES[name])
    assert type(short._run.window) is SingleWindow
    assert type(long._run.window) is Window
    assert_equal_weights(short.model, long.model)
    assert heard[0].seen == heard[1].seen
    rows = [
        [repr({**row, "seconds": 0}) for row in trainer.history]
        for trainer in (short, long)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_p5_what_is_bad_ends_the_run_before_the_weights_are_touched(what: str) -> None:
    model = Spoilt(what)
    with pytest.raises(NonFiniteError):
        make_trainer(model, BATCHES, loss_per="samples").train()
    good = Regression()
    make_trainer(good, BATCHES[:2], loss_per="samples").train()
    assert_equal_weights(model, good)
    assert all(parameter.grad is None for parameter in model.parameters())


class Insists(Callback):
    """Makes the short window of any run."""

    hook_api = ">=1.1,<2"

    def make_window(self) -> type[Window]:
        """Return it."""
        return SingleWindow


def test_a_scaled_loss_goes_the_long_way() -> None:
    how: dict[str, Any] = {"precision": "fp16", "max_grad_norm": 0.05}
    assert_equal_weights(run(Insists(), **how).model, run(**how).model)


@pytest.mark.parametrize(
    "how", [{"gradient_accumulation_steps": 2}, {"precision": "fp16"}]
)
def test_other_windows_go_the_long_way(how: dict[str, Any]) -> None:
    assert type(run(**how)._run.window) is Window


def test_the_graph_of_a_batch_is_gone_when_the_next_one_is_computed() -> None:
    seen: list[weakref.ref[Tensor]] = []

    class Keeps(torch.autograd.Function):
        """Holds a tensor for as long as its node of the graph lives."""

        @staticmethod
        def forward(ctx: Any, loss: Tensor) -> Tensor:
            ctx.kept = loss.clone()
            seen.append(weakref.ref(ctx.kept))
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient

    def step(model: nn.Module, batch: Any) -> Tensor:
        assert not any(each() is not None for each in seen)
        loss: Tensor = Keeps.apply(model(*batch)["loss"])
        return loss

    make_trainer(None, BATCHES, step_fn=step, loss_per=None, num_epochs=1).train()
    assert len(seen) >= len(BATCHES)
