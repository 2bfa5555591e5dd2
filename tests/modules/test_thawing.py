"""What is thawed in a run is trained, or told of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, regression_batches

from trainbus_models.model_utils import freeze_model
from training import Callback, Trainer


def trainer_of(model: nn.Module, parameters: Any, *callbacks: Any) -> Trainer:
    return Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(parameters, lr=0.1),
        callbacks=list(callbacks),
        device="cpu",
    )


class Thaws(Callback):
    """Thaws the head in the second of three epochs."""

    name = "thaws"
    mutates = ("parameters",)

    def __init__(self, hook: str, freezes: bool = False, joins: bool = False) -> None:
        self.hook, self.freezes, self.joins = hook, freezes, joins

    def on_setup(self, trainer: Trainer) -> None:
        if self.freezes:
            trainer.model.layers[3].requires_grad_(False)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._thaw(trainer, "on_epoch_begin")

    def on_step_end(self, trainer: Trainer) -> None:
        self._thaw(trainer, "on_step_end")

    def _thaw(self, trainer: Trainer, hook: str) -> None:
        head = trainer.model.layers[3]
        if (hook, trainer.epoch) == (self.hook, 1) and not head.weight.requires_grad:
            head.requires_grad_(True)
            if self.joins:
                trainer.optimizer.add_param_group({"params": [*head.parameters()]})


THAWED = "layers.3.weight, model.layers.3.bias: they came to require gradients in the"


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_step_end"])
@pytest.mark.parametrize("way", ["freeze_model", "by hand"])
def test_what_is_thawed_in_a_run_and_nobody_trains_is_named_once(
    caplog: pytest.LogCaptureFixture, hook: str, way: str
) -> None:
    model = Regression()
    parameters: Any = model.parameters()
    if way == "by hand":
        model.layers[3].requires_grad_(False)
        parameters = model.layers[0].parameters()
    else:
        freeze_model(model, ["layers.3"])
    before = model.layers[3].weight.clone()
    trainer = trainer_of(model, parameters, Thaws(hook))
    trainer.num_epochs = 3
    trainer.train()
    assert torch.equal(model.layers[3].weight, before)
    assert caplog.text.count(THAWED) == 1
    assert "frozen with requires_grad_(False) in a plugin's on_setup" in caplog.text


@pytest.mark.parametrize("way", ["frozen in on_setup", "joins"])
def test_what_is_thawed_rightly_is_trained_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture, way: str
) -> None:
    model = Regression()
    parameters: Any = model.parameters()
    if way == "joins":
        model.layers[3].requires_grad_(False)
        parameters = model.layers[0].parameters()
    before = model.layers[3].weight.clone()
    thaws = Thaws("on_epoch_begin", freezes=way != "joins", joins=way == "joins")
    trainer = trainer_of(model, parameters, thaws)
    trainer.num_epochs = 2
    trainer.train()
    assert not torch.equal(model.layers[3].weight, before)
    assert "require gradients" not in caplog.text


def test_what_joins_though_it_is_marked_as_frozen_is_told_for_the_resumed_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Regression()
    freeze_model(model, ["layers.3"])
    trainer = trainer_of(model, model.parameters(), Thaws("on_epoch_begin", joins=True))
    trainer.num_epochs = 2
    trainer.train()
    assert "a resumed run freezes it again: model.layers.3.weight, mod" in caplog.text
    assert THAWED not in caplog.text


def test_what_a_hook_steps_in_backward_once_it_is_thawed_is_not_said_to_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Regression()
    for each in model.layers[
        3
    ].parameters():  # torch takes a hook while it requires one
        each.register_post_accumulate_grad_hook(
            lambda p: torch.optim.SGD([p], lr=0.1).step()
        )
    model.layers[3].requires_grad_(False)
    before = model.layers[3].weight.clone()
    trainer = trainer_of(model, model.layers[0].parameters(), Thaws("on_epoch_begin"))
    trainer.num_epochs = 2
    trainer.train()
    assert not torch.equal(model.layers[3].weight, before)
    assert caplog.text.count("layers.3.bias, but hooks from register_post_acc") == 1
    assert "stay as they are" not in caplog.text


class HasOptimizers(Thaws):
    """Trains the head by an optimizer of its own, in a list or a mapping."""

    alters_training = True

    def __init__(self, hook: str, optimizers: Any) -> None:
        super().__init__(hook)
        self.optimizers = optimizers


@pytest.mark.parametrize("is_thawed", [False, True])
@pytest.mark.parametrize("holds", [lambda each: [each], lambda each: {"head": each}])
def test_what_a_plugin_has_among_its_optimizers_is_not_said_to_stay(
    caplog: pytest.LogCaptureFixture, holds: Any, is_thawed: bool
) -> None:
    model = Regression()
    own = torch.optim.SGD(model.layers[3].parameters(), lr=0.1)
    model.layers[3].requires_grad_(not is_thawed)
    plugin = HasOptimizers("on_epoch_begin", holds(own))
    trainer = trainer_of(model, model.layers[0].parameters(), plugin)
    trainer.num_epochs = 2
    trainer.train()
    assert model.layers[3].weight.requires_grad
    assert "require gradients" not in caplog.text


def test_thawing_looks_past_a_parameter_of_the_optimizer_that_has_no_name() -> None:
    class Adds(Callback):
        """Gives the optimizer what no checkpoint of this run, which has none, holds."""

        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                free = nn.Parameter(torch.zeros(3))
                trainer.optimizer.add_param_group({"params": [free]})

    model = Regression()
    model.layers[3].requires_grad_(False)
    parameters = model.layers[0].parameters()
    thaws = Thaws("on_epoch_begin", joins=True)
    trainer = trainer_of(model, parameters, Adds(), thaws)
    trainer.num_epochs = 2
    trainer.train()
    assert trainer.epoch == 2
