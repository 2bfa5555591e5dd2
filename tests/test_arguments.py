"""What a trainer is given is checked when it is given, and numbers are numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches

from training import (
    Callback,
    CheckpointError,
    ConfigError,
    ModelCheckpointCallback,
    Trainer,
)
from training.discovery.signature import checked_options
from training.plain import plain

NAN, INF = float("nan"), float("inf")


def trainer_with(optimizer: Callable[[Any], Any], **options: Any) -> Trainer:
    model = options.pop("model", None) or Regression()
    return Trainer(
        model,
        regression_batches(),
        optimizer=optimizer(model.parameters()),
        device="cpu",
        **options,
    )


def group_of(trainer: Trainer) -> dict[str, Any]:
    return trainer.optimizer.param_groups[0]


# Numbers of numpy ----------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.array(2.0), 2.0),
        (np.bool_(True), True),
        (np.complex64(1j), 1j),
        (np.str_("a"), "a"),
        ((np.float64(0.9), [np.int8(1)]), (0.9, [1])),
        ({np.int64(1): np.float32(0.25)}, {1: 0.25}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_foreign_number_becomes_the_same_number_of_python(
    value: Any, number: Any
) -> None:
    assert repr(plain(value)) == repr(number)


@pytest.mark.parametrize(
    "value", [1, [1, {"a": (2.0,)}], torch.ones(()), np.ones(2), object(), None]
)
def test_what_holds_no_foreign_number_stays_the_same_object(value: Any) -> None:
    assert plain(value) is value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("num_epochs", np.int64(1), id="num_epochs"),
        pytest.param("max_steps", np.int32(2), id="max_steps"),
        pytest.param("gradient_accumulation_steps", np.uint8(2), id="accumulation"),
        pytest.param("seed", np.int64(3), id="seed"),
        pytest.param("seed", np.uint64(2**63), id="a seed above 2**63"),
        pytest.param("max_grad_norm", np.float32(1.0), id="max_grad_norm"),
        pytest.param("max_grad_norm", np.array(1.0), id="an array of no dimension"),
        pytest.param("fp16", np.bool_(False), id="fp16"),
        pytest.param("tf32", np.bool_(False), id="tf32"),
        pytest.param("metadata", {"a": [np.float64(0.5)]}, id="metadata"),
    ],
)
def test_numbers_of_numpy_are_taken_saved_and_resumed(
    tmp_path: Path, name: str, value: Any
) -> None:
    options = {"num_epochs": 1, name: value}
    trainer = make_trainer(None, None, **options)
    trainer.train()
    path = trainer.save_checkpoint(tmp_path / "a.pt")
    make_trainer(None, None, **options).load_checkpoint(path)
    if name == "metadata":
        assert type(trainer.metadata["a"][0]) is float
    elif name not in ("fp16", "tf32"):
        assert type(getattr(trainer, name)) in (int, float)


RATES = np.logspace(-3, -1, 3)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: torch.optim.AdamW(p, lr=RATES[1]), id="lr"),
        pytest.param(lambda p: torch.optim.SGD(p, lr=np.float32(0.1)), id="float32"),
        pytest.param(
            lambda p: torch.optim.AdamW(p, betas=(RATES[2], RATES[2])),
            id="betas",
        ),
        pytest.param(
            lambda p: torch.optim.AdamW(p, weight_decay=np.float64(0.1)), id="decay"
        ),
        pytest.param(
            lambda p: torch.optim.SGD([{"params": p, "lr": RATES[0]}], lr=1), id="group"
        ),
        pytest.param(
            lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)), id="a tensor as lr"
        ),
        pytest.param(
            lambda p: torch.optim.SGD(p, lr=0.1, nesterov=np.bool_(False)), id="a flag"
        ),
    ],
)
def test_numbers_of_numpy_in_an_optimizer_are_saved_and_resumed(
    tmp_path: Path, make: Any
) -> None:
    trainer = trainer_with(make)
    trainer.train()
    path = trainer.save_checkpoint(tmp_path / "a.pt")
    resumed = trainer_with(make, num_epochs=2)
    resumed.load_checkpoint(path)
    resumed.train()


def test_a_rate_that_a_callback_sets_with_numpy_is_saved_as_a_number(
    tmp_path: Path,
) -> None:
    class Decays(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            group_of(trainer)["lr"] = np.float64(0.05)
            trainer.metadata["lr"] = np.float64(0.05)

    trainer = make_trainer(None, None, Decays())
    trainer.train()
    path = trainer.save_checkpoint(tmp_path / "a.pt")
    resumed = make_trainer(None, None, Decays(), num_epochs=2)
    receipt = resumed.load_checkpoint(path)
    assert receipt is not None
    assert receipt.metadata == {"lr": 0.05}


def test_a_group_that_joins_takes_its_rate_from_plain_defaults() -> None:
    trainer = trainer_with(lambda p: torch.optim.AdamW(p, lr=RATES[1]))
    trainer.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert {type(g["lr"]) for g in trainer.optimizer.param_groups} == {float}


def test_options_of_a_plugin_take_numbers_of_numpy_as_numbers() -> None:
    class Plugin(Callback):
        @checked_options
        def __init__(self, patience: int = 1, factors: list[float] | None = None):
            self.given = (patience, factors)

    assert Plugin(np.int64(3), factors=[np.float64(0.5)]).given == (3, [0.5])
    with pytest.raises(ConfigError, match="must be a whole number"):
        Plugin(np.float64(1.5))


# What is refused -----------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": True}, "num_epochs is True; use a whole number of at least 1"),
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"num_epochs": 1.0}, "num_epochs is 1.0"),
        ({"num_epochs": np.float64(2)}, "num_epochs is 2.0; use"),
        ({"num_epochs": np.bool_(True)}, "num_epochs is True; use"),
        ({"max_steps": "3"}, "max_steps is '3'"),
        ({"gradient_accumulation_steps": -1}, "gradient_accumulation_steps is -1"),
        ({"seed": True}, "seed is True"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": np.float32(1.5)}, "seed is 1.5; use"),
        ({"seed": 2**64}, "from -2\\*\\*63 to 2\\*\\*64 - 1, or None"),
        ({"seed": -(2**63) - 1}, "seed is -9223372036854775809"),
        ({"max_grad_norm": NAN}, "max_grad_norm is nan"),
        ({"max_grad_norm": "1.0"}, "max_grad_norm is '1.0'"),
        ({"max_grad_norm": True}, "max_grad_norm is True"),
        ({"max_grad_norm": np.float64(-1)}, "max_grad_norm is -1.0; use"),
        ({"fp16": np.int8(2)}, "fp16 is 2; use True or False"),
        ({"fp16": "false"}, "fp16 is 'false'; use True or False"),
        ({"cuda_graphs": "no"}, "cuda_graphs is 'no'"),
        ({"metadata": [1]}, "metadata is list"),
        ({"save_dir": ""}, "save_dir is '', which names no folder"),
        ({"metadata": {"a": np.ones(2)}}, "metadata\\['a'\\] is numpy.ndarray"),
        ({"metadata": {"a": Path("b")}}, "which a checkpoint cannot hold"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_work_is_refused_when_it_is_passed(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_trainer(None, None, **options)


class NoRate(torch.optim.Optimizer):
    """An optimizer whose groups are what they were given."""

    def __init__(self, params: Any, **defaults: Any) -> None:
        super().__init__(params, defaults)

    def step(self, closure: Any = None) -> None:
        pass


class Searching(NoRate):
    def step(self, closure: Any) -> None:
        closure()


class Averaging(NoRate):
    def train(self) -> None:
        pass

    def eval(self) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda p: None, "pass a torch optimizer", id="none"),
        pytest.param(
            lambda p: [torch.optim.SGD(p)] * 2, "is a list of 2; pass one, w", id="two"
        ),
        pytest.param(lambda p: torch.optim.SGD, "pass a torch optimizer", id="a class"),
        pytest.param(torch.optim.LBFGS, "LBFGS, whose step.. needs a clo", id="LBFGS"),
        pytest.param(lambda p: Searching(p, lr=1), "needs a closure", id="one's own"),
        pytest.param(lambda p: Averaging(p, lr=1), "has train.. and eval", id="modes"),
        pytest.param(lambda p: NoRate(p, lr=None), "has the lr None", id="no lr"),
        pytest.param(NoRate, "has the lr None", id="no such option"),
        pytest.param(lambda p: NoRate(p, lr=True), "has the lr True", id="a bool"),
        pytest.param(lambda p: NoRate(p, lr=NAN), "lr nan; use a finite", id="nan"),
        pytest.param(lambda p: torch.optim.SGD(p, lr=INF), "lr inf; use", id="inf"),
        pytest.param(lambda p: NoRate(p, lr=torch.ones(2)), "has the lr t", id="two"),
    ],
)
def test_an_optimizer_that_cannot_be_stepped_is_refused_when_it_is_passed(
    make: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer_with(make)


def test_an_lbfgs_that_a_scheduler_has_patched_is_refused_too() -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.LBFGS(parameters)
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return optimizer

    with pytest.raises(ConfigError, match="needs a closure"):
        trainer_with(make)


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, lr=0.0), lambda p: NoRate(p, lr=1)],
    ids=["a rate of 0", "one's own with an optional closure"],
)
def test_an_optimizer_that_steps_without_is_taken(make: Any) -> None:
    trainer = trainer_with(make)
    trainer.train()
    assert trainer.step == 4


# What no checkpoint could hold ---------------------------------


class Steps(Callback):
    count = 0

    def on_step_end(self) -> None:
        self.count += 1


def foreign(parameters: Any) -> torch.optim.Optimizer:
    return NoRate(parameters, lr=0.1, rule=len)


def test_an_option_that_no_checkpoint_can_hold_is_told_before_the_first_step(
    tmp_path: Path,
) -> None:
    steps = Steps()
    saves = ModelCheckpointCallback(tmp_path, monitor="train_loss")
    trainer = trainer_with(foreign, callbacks=[steps, saves])
    with pytest.raises(ConfigError, match=r"param_groups\[0\]\['rule'\] is builtins"):
        trainer.train()
    assert steps.count == 0


@pytest.mark.parametrize("plugins", [[], ["distributed"]])
def test_without_anybody_who_saves_it_is_a_warning(
    plugins: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer_with(foreign, plugins=plugins).train()
    assert "this run cannot be saved" in caplog.text


def test_metadata_that_a_plugin_adds_is_looked_at_too(tmp_path: Path) -> None:
    class Adds(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            trainer.metadata["where"] = tmp_path

    saves = ModelCheckpointCallback(tmp_path, monitor="train_loss")
    with pytest.raises(ConfigError, match=r"metadata\['where'\]"):
        trainer_with(torch.optim.AdamW, callbacks=[Adds(), saves]).train()


# Parts of another kind -----------------------------------------


def step_lr(trainer: Trainer) -> Any:
    return torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda t: [step_lr(t)], id="a list"),
        pytest.param(lambda t: {"scheduler": step_lr(t)}, id="a mapping"),
        pytest.param(lambda t: "cosine", id="a name"),
        pytest.param(lambda t: torch.optim.lr_scheduler.StepLR, id="a class"),
        pytest.param(lambda t: 3, id="a number"),
    ],
)
def test_what_is_no_scheduler_is_refused_with_what_to_pass(
    make: Callable[[Trainer], Any],
) -> None:
    scheduler = make(trainer_with(lambda p: torch.optim.SGD(p, lr=0.1)))
    with pytest.raises(ConfigError, match="pass one torch scheduler object") as caught:
        trainer_with(lambda p: torch.optim.SGD(p, lr=0.1), scheduler=scheduler)
    assert 'plugins=[{"lr_scheduling": {"type": "cosine"}}]' in str(caught.value)
    assert "scheduler is " in str(caught.value)


@pytest.mark.parametrize("path", [None, 3, ["a.pt"], b"a.pt"])
@pytest.mark.parametrize("method", ["load_checkpoint", "save_checkpoint"])
def test_what_is_no_path_is_refused_with_its_value(method: str, path: Any) -> None:
    trainer = make_trainer(None, None)
    with pytest.raises(ConfigError) as caught:
        getattr(trainer, method)(path)
    assert str(caught.value) == f"the path is {path!r}; pass a string or a pathlib.Path"


@pytest.mark.parametrize("path", ["a\0b.pt", "a\ud800.pt"], ids=["NUL", "half"])
@pytest.mark.parametrize("method", ["load_checkpoint", "save_checkpoint"])
def test_a_path_that_no_file_can_have_is_refused(method: str, path: str) -> None:
    trainer = make_trainer(None, None)
    with pytest.raises(ConfigError, match="is no path: it holds a character") as caught:
        getattr(trainer, method)(path)
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_folder_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_only: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, "", "."):
        with pytest.raises(CheckpointError, match="a folder"):
            make_trainer(None, None).load_checkpoint(path, weights_only=weights_only)


def test_an_error_in_loss_per_says_where_it_was_raised() -> None:
    def count(batch: Any) -> float:
        return float(batch["mask"].sum())

    trainer = trainer_with(lambda p: torch.optim.SGD(p, lr=0.1), loss_per=count)
    with pytest.raises((TypeError, KeyError)) as caught:
        trainer.train()
    raised_by, where = caught.value.__notes__
    assert raised_by == "raised by loss_per, given a tuple"
    assert where == "in step 1: batch 0 of the epoch"
