"""What a step function reaches belongs to the run, by the name that leads to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Regression, regression_batches

from training import Callback, Trainer


class Scaled(nn.Module):
    """A loss with a scale and a counting buffer."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.5), requires_grad=False)
        self.register_buffer("seen", torch.zeros(()))

    def step(self, model: Any, batch: Any) -> Tensor:
        self.seen += 1
        error: Tensor = (model.layers(batch[0]) * self.scale - batch[1]).square()
        return error.mean()


def built_with(step: Any, *callbacks: Any) -> Trainer:
    model = Regression()
    return Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        callbacks=list(callbacks),
        device="cpu",
        seed=1,
    )


teacher = Scaled()  # nobody reads this global, only an attribute of that name


def test_a_global_that_has_the_name_of_an_attribute_is_none_of_the_loss() -> None:
    own = SimpleNamespace(teacher=Scaled())
    trainer = built_with(lambda model, batch: own.teacher.step(model, batch))
    names = set(trainer.criterion.state_dict())
    assert names == {"own.teacher.scale", "own.teacher.seen"}


def test_what_a_closure_has_goes_by_its_name_there_whatever_else_leads_to_it() -> None:
    loss = Scaled()
    helper = SimpleNamespace(loss=loss)

    def helps(model: nn.Module, batch: Any) -> Tensor:
        return loss.step(model, batch)

    def step(model: nn.Module, batch: Any) -> Tensor:
        assert helper.loss is not None
        return helps(model, batch)

    names = set(built_with(step).criterion.state_dict())
    assert names == {"helps.loss.scale", "helps.loss.seen"}


def test_what_a_callback_holds_is_in_its_own_state_alone() -> None:
    class Follows(Callback):
        def __init__(self) -> None:
            self.teacher = Scaled()

    follows = Follows()
    trainer = built_with(
        lambda model, batch: follows.teacher.step(model, batch), follows
    )
    assert trainer.criterion.state_dict() == {}


def test_a_checkpoint_from_before_attributes_were_looked_at_is_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = SimpleNamespace(loss=Scaled())
    trainer = built_with(lambda model, batch: own.loss.step(model, batch))
    trainer.save_checkpoint(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    state["loss"] = {}
    torch.save(state, tmp_path / "b.pt")
    trainer.train(resume=tmp_path / "b.pt")
    assert "reaches by an attribute: own.loss.scale, own.loss.seen; they" in caplog.text


def test_a_step_that_reads_attributes_of_a_library_holds_nothing_of_it() -> None:
    def step(model: Any, batch: Any) -> Tensor:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.autocast("cpu", enabled=False):
            out = torch.nn.functional.mse_loss(model.layers(batch[0]), batch[1])
        return torch.utils.checkpoint.checkpoint(lambda: out, use_reentrant=False)

    assert built_with(step).criterion.state_dict() == {}
