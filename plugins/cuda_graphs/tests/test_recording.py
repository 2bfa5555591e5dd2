"""What is not recorded says why in one sentence."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainbus_cuda_graphs.graphed_window import form_of
from training import hookimpl
from training.plugin import NotedWindow, SingleWindow, UnreadWindow

from .graphed import assert_same_weights, trainer_of

pytestmark = pytest.mark.usefixtures("tape")


def reads(model: nn.Module, batch: Any) -> Tensor:
    loss: Tensor = model(*batch)["loss"]
    return loss * (1.0 if loss.item() > -1 else 2.0)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_model_that_cannot_be_recorded_runs_on_without_and_says_why(
    accumulation: int, tape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [
        trainer_of(
            step_fn=reads, cuda_graphs=on, gradient_accumulation_steps=accumulation
        )
        for on in (False, True)
    ]
    for trainer in runs:
        trainer.train()
    assert (tape.recordings, tape.replays) == (1, 0), "tried once"
    assert "a step of this model cannot be recorded (" in caplog.text
    assert "while recording)" in caplog.text
    assert_same_weights(*runs)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("weight", "step_fn counts", id="one that counts by itself"),
        pytest.param(
            "rows",
            "step_fn returns 'rows' as a number of the host",
            id="a part that is a number of the host",
        ),
    ],
)
def test_a_step_fn_is_not_recorded_with(
    name: str, why: str, tape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": model(*batch)["loss"], name: len(batch[0])}

    trainer_of(step_fn=step).train()
    assert tape.recordings == 0
    assert why in caplog.text


class Wraps:
    @hookimpl
    def wrap_model(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model)


def hooked(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(parameters, **options)
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


def loose(parameters: Any, fused: bool, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=False, **options)


class Clears(torch.optim.AdamW):
    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)


def moving(parameters: Any, lr: float, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=torch.tensor(lr), **options)


@pytest.mark.parametrize(
    ("options", "says", "window"),
    [
        pytest.param({"precision": "fp16"}, "fp16", UnreadWindow, id="a loss scale"),
        pytest.param({"nonfinite": "skip"}, "'skip'", NotedWindow, id="policy skip"),
        pytest.param({"optimizer": loose}, "not fused", NotedWindow, id="not fused"),
        pytest.param({"optimizer": hooked}, "hooks", UnreadWindow, id="step hooks"),
        pytest.param({"optimizer": Clears}, "zero_grad", UnreadWindow, id="its own"),
        pytest.param({"optimizer": moving}, "tensor", UnreadWindow, id="a tensor rate"),
        pytest.param({"wraps": True}, "wraps", UnreadWindow, id="a wrapper"),
    ],
)
def test_what_is_not_recorded_says_why_in_one_sentence(
    options: dict[str, Any], says: str, window: Any, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks = [Wraps()] if options.pop("wraps", False) else []
    if callbacks:
        options["step_fn"] = lambda model, batch: model[0](*batch)["loss"]
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(None, *callbacks, **options)
        trainer.train()
    assert type(trainer._run.window) is window
    (said,) = [r.message for r in caplog.records if "cuda_graphs" in r.message]
    assert says in said


def test_a_cpu_records_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    trainer = trainer_of()
    trainer.train()
    assert type(trainer._run.window) is SingleWindow
    assert "a cpu device records nothing" in caplog.text


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        pytest.param(torch.ones(2), torch.zeros(2), True, id="values"),
        pytest.param(torch.ones(2), torch.ones(3), False, id="shapes"),
        pytest.param(torch.ones(2), torch.ones(2).double(), False, id="dtypes"),
        pytest.param({"a": 1}, {"a": 1}, True, id="constants"),
        pytest.param({"a": 1}, {"a": 2}, False, id="other constants"),
        pytest.param({"a": 1}, {"a": True}, False, id="other types"),
        pytest.param([object], [object], False, id="what nobody knows"),
        pytest.param((1, 2), [1, 2], False, id="containers"),
    ],
)
def test_two_batches_are_of_one_form_by(left: Any, right: Any, alike: bool) -> None:
    assert (form_of(left) == form_of(right)) is alike
