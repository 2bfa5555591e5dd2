"""Runs of the real kernel that are stopped, resumed and trained twice."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
import torch

from trainbus_early_stopping import EarlyStoppingCallback
from training import Callback, Trainer


class Evaluates(Callback):
    """Delivers the given losses, one an epoch."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": self.losses[trainer.epoch - 1]}


def build(*callbacks: Any, num_epochs: int = 8) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    return Trainer(
        model,
        [(torch.ones(2, 1), torch.ones(2, 1))] * 3,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[each for each in callbacks if not isinstance(each, tuple)],
        plugins=[each for each in callbacks if isinstance(each, tuple)],
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        loss_fn=torch.nn.functional.mse_loss,
        loss_per="samples",  # rows that are all alike tell nothing
    )


class Records(Callback):
    """Keeps the weights of every epoch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.weights.append(trainer.model.weight.detach().clone())


def test_a_run_ends_at_the_check_that_uses_up_patience_with_the_best_weights():
    seen = Records()
    trainer = build(
        seen,
        Evaluates(1.0, 0.5, 0.6, 0.7, 0.1),
        EarlyStoppingCallback(
            monitor="val_loss",
            patience=2,
            min_delta=0.001,
            mode="min",
            restore_best_weights=True,
        ),
    )
    trainer.train()
    assert (trainer.epoch, trainer.stop_owner) == (4, "early_stopping")
    assert "(best 0.5 at epoch 2)" in trainer.stop_reason
    assert trainer.weights_are == "best@6"
    assert torch.equal(trainer.model.weight, seen.weights[1])


def test_best_weights_are_restored_whatever_ended_the_run_but_not_on_an_exception():
    class Fails(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            if trainer.epoch == 3:
                raise RuntimeError("third epoch")

    def stopper() -> EarlyStoppingCallback:
        return EarlyStoppingCallback(restore_best_weights=True)

    planned = build(Evaluates(0.5, 0.6, 0.7), stopper(), num_epochs=3)
    planned.train()
    assert planned.weights_are == "best@3"
    failed = build(Evaluates(0.5, 0.6, 0.7), stopper(), Fails(), num_epochs=3)
    with pytest.raises(RuntimeError, match="third epoch"):
        failed.train()
    assert failed.weights_are == "live"


def test_the_best_weights_are_those_of_the_last_that_puts_its_own_back():
    seen = Records()
    least = EarlyStoppingCallback(restore_best_weights=True)
    most = EarlyStoppingCallback(restore_best_weights=True, mode="max")
    losses = Evaluates(0.5, 0.4, 0.6)
    trainer = build(losses, seen, ("a", least), ("b", most), num_epochs=3)
    trainer.train()
    assert (least.best_step, most.best_step) == (6, 9)
    assert trainer.weights_are == "best@9"
    assert torch.equal(trainer.model.weight, seen.weights[2])


def test_a_file_saved_after_the_best_weights_are_back_says_so_when_it_is_loaded(
    tmp_path, caplog
):
    trainer = build(
        Evaluates(0.4, 0.5), EarlyStoppingCallback(restore_best_weights=True)
    )
    trainer.num_epochs = 2
    trainer.train()
    trainer.save_checkpoint(tmp_path / "final.pt")
    again = build(Evaluates(0.4, 0.5, 0.6), EarlyStoppingCallback(), num_epochs=3)
    told = again.load_checkpoint(tmp_path / "final.pt")
    assert told.weights_are == "best@3"
    for text in (str(told), caplog.text):
        assert "its weights are 'best@3', which a plugin had put in the place" in text
    again.save_checkpoint(tmp_path / "copy.pt")
    told = again.load_checkpoint(tmp_path / "copy.pt")
    assert told.weights_are == "best@3"
    again.train()
    again.save_checkpoint(tmp_path / "live.pt")
    assert again.load_checkpoint(tmp_path / "live.pt").weights_are == "live"


def test_weights_that_are_loaded_alone_are_called_what_their_file_calls_them(tmp_path):
    class Saves(Callback):
        def on_checkpoint(self, trainer):
            trainer.save_checkpoint(tmp_path / f"{trainer.step}.pt")

    best = EarlyStoppingCallback(restore_best_weights=True)
    trainer = build(Evaluates(0.4, 0.5), best, Saves(), num_epochs=2)
    trainer.train()
    trainer.save_checkpoint(tmp_path / "best.pt")
    assert trainer.weights_are == "best@3"
    trainer.load_checkpoint(tmp_path / "6.pt", weights_only=True)
    assert trainer.weights_are == "live"
    trainer.save_checkpoint(tmp_path / "again.pt")
    for name, label in (("best", "best@3"), ("again", "live")):
        trainer.load_checkpoint(tmp_path / f"{name}.pt", weights_only=True)
        assert trainer.weights_are == label


def test_weights_that_are_loaded_in_a_run_are_live(tmp_path):
    class Loads(Callback):
        mutates = ("parameters",)

        def on_epoch_begin(self, trainer):
            trainer.load_checkpoint(tmp_path / "best.pt", weights_only=True)

    best = EarlyStoppingCallback(restore_best_weights=True)
    trainer = build(Evaluates(0.4, 0.5), best, num_epochs=2)
    trainer.train()
    trainer.save_checkpoint(tmp_path / "best.pt")
    goes_on = build(Evaluates(0.4), Loads(), num_epochs=1)
    goes_on.train()
    assert goes_on.weights_are == "live"


def test_one_that_has_an_id_does_not_take_the_checkpoint_of_another_run(tmp_path):
    class Finds(Callback):
        hook_api = ">=1.1,<2"

        def find_checkpoint(self, step: int) -> Any:
            return tmp_path / "other.pt" if step == 3 else None

    stopper = EarlyStoppingCallback(restore_best_weights=True)
    other = build(Evaluates(0.9), ("loss", stopper), num_epochs=1)
    other.train()
    other.save_checkpoint(tmp_path / "other.pt")
    stopper = EarlyStoppingCallback(restore_best_weights=True)
    seen = Records()
    run = build(Evaluates(0.5, 0.6), seen, ("loss", stopper), Finds(), num_epochs=2)
    torch.nn.init.constant_(run.model.weight, 5.0)
    run.train()
    assert run.weights_are == "best@3"
    assert torch.equal(run.model.weight, seen.weights[0])


def test_a_stopped_run_stays_stopped_when_resumed_and_goes_on_with_more_patience(
    tmp_path,
):
    class Saves(Callback):
        def on_checkpoint(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(tmp_path / "last.pt")

    losses = Evaluates(1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    build(losses, EarlyStoppingCallback(patience=2), Saves()).train()
    again = build(losses, EarlyStoppingCallback(patience=2))
    again.load_checkpoint(tmp_path / "last.pt")
    again.train()
    assert again.epoch == 3
    assert "set early_stopping.patience above 2" in again.stop_reason
    patient = build(losses, EarlyStoppingCallback(patience=4))
    patient.load_checkpoint(tmp_path / "last.pt")
    patient.train()
    assert (patient.epoch, patient.stop_owner) == (5, "early_stopping")


def test_training_twice_gives_the_same_run_twice():
    trainer = build(Evaluates(1.0, 2.0, 2.0, 0.1), EarlyStoppingCallback(patience=2))
    trainer.train()
    first = trainer.epoch, trainer.stop_reason
    trainer.train()
    assert (trainer.epoch, trainer.stop_reason) == first


def test_quiet_runs_warn_about_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        build(Evaluates(3.0, 2.0, 1.0), EarlyStoppingCallback(), num_epochs=3).train()
    assert caplog.text == ""


def test_a_plugin_can_be_sent_to_another_process_before_and_after_a_run():
    stopper = EarlyStoppingCallback(restore_best_weights=True, patience=9)
    pickle.dumps(stopper)
    build(Evaluates(1.0, 0.5, 0.6), stopper, num_epochs=3).train()
    assert pickle.loads(pickle.dumps(stopper)).best_value == 0.5
