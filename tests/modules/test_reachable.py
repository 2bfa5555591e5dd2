"""What a step function reaches belongs to the run, by the name that leads to it."""

from __future__ import annotations

import copy
from collections.abc import Callable
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


class Saves(Callback):
    """Does something at each epoch's end, and saves at each checkpoint."""

    def __init__(self, folder: Path, act: Callable[[Trainer], None]) -> None:
        self.folder, self.act = folder, act

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.act(trainer)

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.epoch}.pt")


def distilling(
    folder: Path, act: Callable[[Trainer, Any], None], **attributes: Any
) -> tuple[Trainer, SimpleNamespace]:
    """Return a run of 4 epochs with a teacher in a namespace, and that."""
    given = {"teacher": Regression(), "more": None, "extra": None}
    own = SimpleNamespace(**{**given, **attributes})

    def step(model: Any, batch: Any) -> Tensor:
        for each in (own.teacher, own.more, own.extra):
            if each is not None:
                error: Tensor = model.layers(batch[0]) - each.layers(batch[0]).detach()
                return error.square().mean()
        raise AssertionError

    trainer = built_with(step, Saves(folder, lambda trainer: act(trainer, own)))
    trainer.num_epochs = 4
    return trainer, own


def born_again(trainer: Trainer, own: Any) -> None:
    """Let the model be its own teacher from now on, with other weights."""
    own.teacher = copy.deepcopy(trainer.model)
    with torch.no_grad():
        for parameter in own.teacher.parameters():
            parameter.mul_(0.5)


def test_a_teacher_that_is_replaced_in_the_run_is_resumed_as_it_was_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight, own = distilling(tmp_path, born_again)
    straight.train()
    expected = own.teacher.state_dict()
    resumed, other = distilling(tmp_path, born_again)
    resumed.train(resume=tmp_path / "2.pt")
    losses = [
        [row["train_loss"] for row in each.history] for each in (straight, resumed)
    ]
    assert losses[0] == losses[1]
    torch.testing.assert_close(other.teacher.state_dict(), expected, rtol=0, atol=0)
    assert "the loss has" not in caplog.text


def test_a_teacher_that_is_replaced_between_two_runs_is_saved_by_the_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, own = distilling(tmp_path, lambda trainer, own: None)
    trainer.train()
    own.teacher = Regression()
    with torch.no_grad():
        own.teacher.layers[0].weight.fill_(7.0)
    trainer.train()
    saved = torch.load(tmp_path / "4.pt", weights_only=True)["loss"]
    assert saved["own.teacher.layers.0.weight"].eq(7.0).all()
    own.teacher, own.extra = (
        None,
        Regression(),
    )  # another one, of which a new run begins
    trainer.train()
    saved = torch.load(tmp_path / "4.pt", weights_only=True)["loss"]
    assert {name.split(".")[1] for name in saved} == {"extra"}
    assert "the loss has" not in caplog.text


@pytest.mark.parametrize("way", ["gone", "the model", "of another shape"])
def test_a_teacher_that_no_resumed_run_could_begin_with_is_told_of_once(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def replace(trainer: Trainer, own: Any) -> None:
        if way == "of another shape":
            own.teacher = copy.deepcopy(own.teacher)
            own.teacher.layers.append(nn.Linear(1, 1))
        else:
            own.teacher = None if way == "gone" else trainer.model

    trainer, _ = distilling(tmp_path, replace, more=Regression())
    trainer.train()
    assert caplog.text.count("at loss.own.teacher: checkpoints keep what") == 1
    saved = torch.load(tmp_path / "4.pt", weights_only=True)["loss"]
    assert "own.teacher.layers.0.weight" in saved
    distilling(tmp_path, replace, more=Regression())[0].load_checkpoint(
        tmp_path / "4.pt"
    )


@pytest.mark.parametrize("moves", [False, True])
def test_what_comes_up_in_a_run_is_told_of_if_training_moves_or_replaces_it(
    moves: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(trainer: Trainer, own: Any) -> None:
        if own.extra is None or moves:
            own.extra = Regression()

    trainer, _ = distilling(tmp_path, load)
    trainer.train()
    told = "moves or replaces what the loss has at loss.own.extra, which no checkpoint"
    assert caplog.text.count(told) == moves
    distilling(tmp_path, load)[0].load_checkpoint(tmp_path / "4.pt")
    trainer.train()  # what it has loaded by itself, another program has not
    distilling(tmp_path, load)[0].load_checkpoint(tmp_path / "4.pt")
