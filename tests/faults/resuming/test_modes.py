"""R12: each module trains in the mode that its owner gave it, resumed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import SavesEverywhere, loader_of
from torch import Tensor, nn

from training import Callback, CheckpointError, Trainer
from training.checkpoint.compare import first_difference
from training.checkpoint.state import capture


class Net(nn.Module):
    """A body with BatchNorm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.mse_loss(self.head(self.body(x)), y)}


class KeepsNorm(Net):
    """Has a ``train`` of its own, which leaves BatchNorm in eval mode."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.body[1].eval()
        return self


def step(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(batch[0], batch[1])["loss"]
    return loss


def make(model: nn.Module, *callbacks: Any, **options: Any) -> Trainer:
    given = {"num_epochs": 3, "seed": 3, "device": "cpu", "step_fn": step}
    return Trainer(
        model,
        loader_of(batch_size=3),
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        callbacks=list(callbacks),
        **{**given, **options},
    )


class Sees(Callback):
    """Keeps which modules were in eval mode when a batch came."""

    def __init__(self) -> None:
        self.seen: list[set[str]] = []

    def on_batch_begin(self, trainer: Trainer) -> None:
        named = trainer.model.named_modules()
        self.seen.append({name for name, module in named if not module.training})


def as_it_is(model: Net) -> Net:
    return model


def with_norm_in_eval(model: Net) -> Net:
    model.body[1].eval()
    return model


def with_body_in_eval(model: Net) -> Net:
    model.body.eval()
    return model


def wholly_in_eval(model: Net) -> Net:
    return model.eval()


def from_pretrained_with_a_new_head(model: Net) -> Net:
    model.eval()
    model.head = nn.Linear(8, 1)
    return model


def with_frozen_body(model: Net) -> Net:
    model.body._is_frozen = True  # type: ignore[assignment]
    return model.eval()


BODY = {"body", "body.0", "body.1", "body.2"}
GIVEN = [
    (as_it_is, set(), False),
    (with_norm_in_eval, {"body.1"}, True),
    (with_body_in_eval, BODY, True),
    (wholly_in_eval, set(), False),
    (from_pretrained_with_a_new_head, set(), False),
    (with_frozen_body, BODY, False),
]


@pytest.mark.parametrize(
    ("given", "resting", "is_told"), GIVEN, ids=[each[0].__name__ for each in GIVEN]
)
def test_r12_modes_in_training_are_those_of_a_model(
    given: Any, resting: set[str], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sees = Sees()
    make(given(Net()), sees).train()
    assert sees.seen == [resting] * 12
    assert ("stays in eval mode" in caplog.text) == is_told
    assert caplog.text.count("stays in eval mode") <= 1


def test_a_model_with_a_train_of_its_own_is_asked() -> None:
    sees = Sees()
    make(KeepsNorm(), sees).train()
    assert sees.seen == [{"body.1"}] * 12


class RestsNorm(Callback):
    """Puts BatchNorm to rest in the second epoch."""

    def __init__(self, again: bool = False) -> None:
        self.again, self.is_done = again, False

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        if self.again and resumed and trainer.epoch >= 1:
            self.rest(trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1 and not self.is_done:
            self.rest(trainer)

    def rest(self, trainer: Trainer) -> None:
        self.is_done = True
        trainer.model.body[1].eval()


class LeavesEval(Callback):
    """Evaluates without putting modes back."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        if self.hook == "evaluate":
            trainer.model.eval()
        return {"val_loss": 1.0}

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.hook == "on_epoch_end":
            trainer.model.eval()

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_evaluation("test")


@pytest.mark.parametrize("hook", ["evaluate", "on_epoch_end", "neither"])
def test_r12_what_rests_rests_on_whatever_an_evaluation_leaves(hook: str) -> None:
    sees = Sees()
    make(with_norm_in_eval(Net()), sees, LeavesEval(hook)).train()
    assert sees.seen == [{"body.1"}] * 12


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_batch_end", "on_step_end"])
def test_a_model_that_a_hook_leaves_in_eval_mode_goes_back_before_the_next_batch(
    hook: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(self: Callback, trainer: Trainer) -> None:
        trainer.model.eval()

    leaves = type("Leaves", (Callback,), {hook: leave, "after": ("Sees",)})
    sees = Sees()
    straight = make(with_norm_in_eval(Net()), sees, leaves(), SavesEverywhere(tmp_path))
    straight.train()
    assert sees.seen == [{"body.1"}] * 12
    assert caplog.text.count("was left in eval mode between two batches") == 1
    ignored = frozenset({"seconds", "requests", "distributions"})
    for path in sorted(tmp_path.iterdir()):
        resumed = make(with_norm_in_eval(Net()), leaves())
        resumed.load_checkpoint(path)
        resumed.train()
        found = first_difference(capture(resumed), capture(straight), ignored=ignored)
        assert found is None, path.name
    assert len(list(tmp_path.iterdir())) == 12


def test_parts_that_a_step_fn_puts_into_eval_mode_are_trained_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rest(model: Any, batch: Any) -> Tensor:
        for part in model.children():
            part.eval()
        return step(model, batch)

    sees, net = Sees(), Net()
    make(net, sees, step_fn=rest).train()
    assert set.union(*sees.seen[1:]) == set.intersection(*sees.seen[1:]) >= {"body.2"}
    assert not net.body[1].num_batches_tracked
    assert "eval mode" not in caplog.text


@pytest.mark.parametrize("again", [False, True], ids=["once", "again when resumed"])
def test_r12_every_boundary_resumes_what_a_plugin_put_to_rest(
    tmp_path: Path, again: bool
) -> None:
    straight = make(Net(), RestsNorm(again), SavesEverywhere(tmp_path))
    straight.train()
    ignored = frozenset({"seconds", "requests", "distributions"})
    for path in sorted(tmp_path.iterdir()):
        sees = Sees()
        resumed = make(Net(), RestsNorm(again), sees)
        resumed.load_checkpoint(path)
        resumed.train()
        found = first_difference(capture(resumed), capture(straight), ignored=ignored)
        assert found is None, path.name
        expected = ([set()] * 4 + [{"body.1"}] * 8)[int(path.stem.split("-")[1]) :]
        assert sees.seen == expected
    assert len(list(tmp_path.iterdir())) == 12


def test_a_second_run_of_a_trainer_keeps_them() -> None:
    sees = Sees()
    trainer = make(with_norm_in_eval(Net()), sees, num_epochs=1)
    trainer.train()
    trainer.model.eval()
    trainer.train()
    assert sees.seen == [{"body.1"}] * 8


def test_a_run_whose_modules_rest_as_in_the_one_before_says_so_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sees = Sees()
    trainer = make(with_body_in_eval(Net()), sees, num_epochs=2)
    trainer.train()
    told = "stays in eval mode, as it was before training: model.body;"
    assert caplog.text.count(told) == 1
    trainer.model.train()
    trainer.model.eval()  # which of both came last is all that can be seen
    trainer.train()
    assert caplog.text.count(told) == 2
    trainer.model.train()
    trainer.train()
    assert caplog.text.count("stays in eval mode") == 2
    assert sees.seen == [BODY] * 16 + [set()] * 8


def test_a_module_that_is_frozen_no_more_goes_into_train_mode() -> None:
    class Thaws(Callback):
        def on_epoch_begin(self, trainer: Trainer) -> None:
            if trainer.epoch == 1:
                trainer.model.body._is_frozen = False  # type: ignore[assignment]

    sees = Sees()
    make(with_frozen_body(Net()), sees, Thaws()).train()
    assert sees.seen == [BODY] * 4 + [set()] * 8


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("on_batch_begin", "a window of batches is under way"),
        ("on_batch_end", "a window of batches is under way"),
        ("on_before_step", "a window of batches is under way"),
        ("on_step_end", None),
        ("on_epoch_begin", None),
        ("on_epoch_end", None),
        ("evaluate", "an evaluation is under way"),
    ],
)
def test_a_checkpoint_is_of_a_boundary_or_refused(
    tmp_path: Path, hook: str, told: str | None
) -> None:
    class Saves(Callback):
        count = 0

    def save(self: Any, trainer: Trainer) -> None:
        self.count += 1
        if self.count == 3:
            trainer.save_checkpoint(tmp_path / "a.pt")

    setattr(Saves, hook, save)
    trainer = make(Net(), Saves(), gradient_accumulation_steps=2)
    if told is None:
        trainer.train()
        return
    with pytest.raises(CheckpointError, match=told):
        trainer.train()
    assert not (tmp_path / "a.pt").exists()


def test_after_a_failure_inside_a_window_a_loaded_state_can_be_saved(
    tmp_path: Path,
) -> None:
    class Fails(Callback):
        def on_batch_end(self, trainer: Trainer) -> None:
            raise RuntimeError("lost")

    trainer = make(Net(), Fails())
    trainer.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(RuntimeError, match="lost"):
        trainer.train()
    with pytest.raises(CheckpointError, match="a window"):
        trainer.save_checkpoint(tmp_path / "b.pt")
    trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.save_checkpoint(tmp_path / "b.pt")
