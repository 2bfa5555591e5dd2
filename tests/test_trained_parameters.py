"""Whether the optimizer trains what the model asks to be trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches

from training import Callback, CheckpointError, ConfigError, Trainer

SENTENCE = "no group of the optimizer has"


def trainer_of(model: nn.Module, parameters: Any, *callbacks: Any) -> Trainer:
    return Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(parameters, lr=0.1),
        callbacks=list(callbacks),
        device="cpu",
    )


def test_a_layer_that_was_replaced_after_the_optimizer_was_built_is_refused() -> None:
    model = Regression()
    parameters = list(model.parameters())
    model.layers[3] = nn.Linear(8, 1)
    with pytest.raises(ConfigError, match=r"parameter 2 of group 0, shape \(1, 8\)"):
        trainer_of(model, parameters)


def test_a_layer_that_was_replaced_after_the_trainer_was_built_is_refused() -> None:
    model = Regression()
    trainer = trainer_of(model, model.parameters())
    model.layers[3] = nn.Linear(8, 1)
    with pytest.raises(ConfigError, match="where a layer was replaced"):
        trainer.train()


def test_a_head_that_no_group_has_is_named_once_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Regression()
    trainer_of(model, model.layers[0].parameters()).train()
    told = f"{SENTENCE} model.layers.3.weight, model.layers.3.bias: they require"
    assert caplog.text.count(told) == 1


class Joins(Callback):
    """Gives the head to the optimizer before the first step."""

    def on_setup(self, trainer: Trainer) -> None:
        parameters = trainer.model.layers[3].parameters()
        trainer.optimizer.add_param_group({"params": parameters})


@pytest.mark.parametrize("way", ["all are in", "no gradient", "frozen", "joins"])
def test_nothing_is_said_where_it_is_meant(
    caplog: pytest.LogCaptureFixture, way: str
) -> None:
    model = Regression()
    parameters = list(model.layers[0].parameters())
    if way == "all are in":
        parameters = list(model.parameters())
    if way == "no gradient":
        model.layers[3].requires_grad_(False)
    if way == "frozen":
        model.layers[3]._is_frozen = True  # type: ignore[assignment]
    trainer_of(model, parameters, *([Joins()] if way == "joins" else [])).train()
    assert SENTENCE not in caplog.text


def test_a_foreign_parameter_that_joins_in_mid_run_is_not_saved_in_silence(
    tmp_path: Path,
) -> None:
    class Adds(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                free = nn.Parameter(torch.zeros(3))
                trainer.optimizer.add_param_group({"params": [free]})

        def on_epoch_end(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(tmp_path / "a.pt")

    told = "nothing was saved: parameter 0 of group 1"
    with pytest.raises(CheckpointError, match=told):
        make_trainer(None, None, Adds()).train()
    assert not list(tmp_path.iterdir())


class Sees(Callback):
    """Hears the moment before a step, in which it may act."""

    def __init__(self, act: Callable[[Trainer], None] = lambda trainer: None) -> None:
        self.act = act

    def on_before_step(self, trainer: Trainer) -> None:
        self.act(trainer)


def astray(model: nn.Linear, *callbacks: Any, **options: Any) -> Trainer:
    """Return a trainer of another layer than the one that its step function uses."""
    own = nn.Linear(4, 1)
    given = {"optimizer": torch.optim.SGD(own.parameters(), lr=0.1), **options}
    return Trainer(
        own,
        regression_batches(6),
        step_fn=lambda _, batch: (model(batch[0]) - batch[1]).square().mean(),
        callbacks=list(callbacks),
        num_epochs=1,
        device="cpu",
        **given,
    )


@pytest.mark.parametrize(
    ("callbacks", "options"),
    [
        ([], {}),
        ([], {"gradient_accumulation_steps": 2, "loss_per": "samples"}),
        ([], {"max_grad_norm": 1.0}),
        ([Sees()], {}),
    ],
)
def test_a_loss_that_gives_no_parameter_of_the_optimizer_a_gradient_is_told_of_once(
    callbacks: list[Any], options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = astray(nn.Linear(4, 1), *callbacks, **options)
    trainer.train()
    assert told_astray(caplog) == 1
    assert not any(each._backward_hooks for each in trainer.model.parameters())


def told_astray(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often it was told that no parameter has a gradient."""
    texts = [record.getMessage() for record in caplog.records]
    return sum("gave no parameter of the optimizer a gradient" in t for t in texts)


def test_a_variable_that_holds_another_model_in_the_next_run_is_found_out_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = [nn.Linear(4, 1)]
    trainer = Trainer(
        models[0],
        regression_batches(),
        step_fn=lambda _, batch: (models[0](batch[0]) - batch[1]).square().mean(),
        optimizer=torch.optim.SGD(models[0].parameters(), lr=0.1),
        num_epochs=1,
        device="cpu",
    )
    trainer.train()
    assert "step" not in vars(trainer._run.window), "later steps pay nothing"
    assert told_astray(caplog) == 0
    models[0] = nn.Linear(4, 1)
    trainer.train()
    assert told_astray(caplog) == 1


def steps_in_backward(trainer: Trainer) -> None:
    def step(parameter: Any) -> None:
        parameter.data.sub_(0.1 * parameter.grad)
        parameter.grad = None

    for each in trainer.model.parameters():
        each.register_post_accumulate_grad_hook(step)


def keeps_elsewhere(trainer: Trainer) -> None:
    for each in trainer.model.parameters():
        node = each.expand_as(each).grad_fn.next_functions[0][0]

        def take(*_: Any, own: Any = each) -> None:
            own.main_grad, own.grad = own.grad, None

        node.register_hook(take)
        each.node = node  # else it is gone, and its hook


@pytest.mark.parametrize("way", [steps_in_backward, keeps_elsewhere])
def test_gradients_that_are_kept_nowhere_or_elsewhere_are_met_all_the_same(
    way: Callable[[Trainer], None], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(None, regression_batches())
    way(trainer)
    trainer.train()
    assert told_astray(caplog) == 0
    assert trainer.step == 4
    assert "step" not in vars(trainer._run.window)
    assert not any(each._backward_hooks for each in trainer.model.parameters())


class Warms(Callback):
    """Has the optimizer of another model, which alone is trained at first."""

    def __init__(self, model: nn.Linear) -> None:
        self.optimizers = [torch.optim.SGD(model.parameters(), lr=0.1)]


def test_where_another_optimizer_may_be_first_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Linear(4, 1)
    astray(model, Warms(model)).train()
    assert told_astray(caplog) == 0


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_that_a_hook_clears_before_the_step_are_told_of_once(
    accumulation: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Clears(Callback):
        def on_batch_end(self, trainer: Trainer) -> None:
            trainer.optimizer.zero_grad()

    trainer = make_trainer(
        None,
        regression_batches(8),
        Clears(),
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    assert caplog.text.count("cleared between backward and step") == 1
    assert told_astray(caplog) == 0
    assert "step" not in vars(trainer._run.window), "later steps pay nothing"


def test_gradients_that_a_plugin_gives_before_the_step_are_some(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def give(trainer: Trainer) -> None:
        for each in trainer.model.parameters():
            each.grad = torch.ones_like(each)

    astray(nn.Linear(4, 1), Sees(give)).train()
    assert told_astray(caplog) == 0


def test_of_a_model_that_is_frozen_when_the_run_begins_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Thaws(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            trainer.model.requires_grad_(trainer.step >= 3)

    trainer = astray(nn.Linear(4, 1), Thaws())
    trainer.model.requires_grad_(False)
    trainer.train()
    assert told_astray(caplog) == 0


def test_a_window_that_weighs_nothing_is_looked_past(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, other = nn.Linear(4, 1), nn.Linear(4, 1)
    used = [other, other, own, own]

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        by = used.pop(0)
        loss = (by(batch[0]) - batch[1]).square().mean()
        return {"loss": loss, "weight": float(by is own)}

    trainer = Trainer(
        own,
        regression_batches(),
        step_fn=step,
        optimizer=torch.optim.SGD(own.parameters(), lr=0.1),
        num_epochs=1,
        device="cpu",
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (4, 2)
    assert told_astray(caplog) == 0
    assert "step" not in vars(trainer._run.window)


def goes_back(retains: bool, *callbacks: Any, **options: Any) -> Trainer:
    """Return a trainer whose step function calls backward() by itself."""

    def step(model: Any, batch: Any) -> torch.Tensor:
        loss = model(*batch)["loss"]
        loss.backward(retain_graph=retains)
        return loss  # type: ignore[no-any-return]

    return make_trainer(None, regression_batches(), *callbacks, step_fn=step, **options)


BACK = "step_fn called backward(); leave that out, unless it is of another loss"


@pytest.mark.parametrize("batches", [1, 2])
def test_a_step_fn_that_goes_backward_by_itself_is_told_of_once(
    caplog: pytest.LogCaptureFixture, batches: int
) -> None:
    trainer = goes_back(True, gradient_accumulation_steps=batches)
    trainer.train()
    assert caplog.text.count(BACK) == 1
    left = {"step", "backward"} & vars(trainer._run.window).keys()
    assert not left, "later steps pay nothing"
    assert trainer._run.window.forward is trainer._forward


@pytest.mark.parametrize("steps", [False, True])
def test_a_step_fn_that_moves_the_learning_rate_is_told_of_once(
    steps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        if steps:  # as scheduler.step() does
            trainer.optimizer.param_groups[0]["lr"] *= 0.5
        return model(*batch)["loss"]  # type: ignore[no-any-return]

    trainer = make_trainer(None, regression_batches(), step_fn=step)
    trainer.train()
    assert caplog.text.count("step_fn changed a learning rate") == steps


def test_a_graph_that_a_step_fn_has_used_up_is_told_with_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RuntimeError, match="a second time") as caught:
        goes_back(False).train()
    note, where = caught.value.__notes__
    assert note.startswith(BACK)
    assert where.startswith("in step 1: batch 0 of the epoch")
    assert BACK not in caplog.text


def test_of_a_step_fn_that_only_returns_its_loss_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = make_trainer(
        None,
        regression_batches(),
        step_fn=lambda model, batch: model(*batch)["loss"],
        gradient_accumulation_steps=2,
    )
    trainer.train()
    assert "backward" not in caplog.text
    assert "backward" not in vars(trainer._run.window)


@pytest.mark.parametrize("own", [False, True], ids=["nothing else", "its own backward"])
def test_of_a_step_fn_that_sets_gradients_to_zero_nothing_is_told(
    caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    def step(model: Any, batch: Any) -> torch.Tensor:
        loss = model(*batch)["loss"]
        if own:
            loss.backward(retain_graph=True)
        trainer.optimizer.zero_grad(set_to_none=False)
        return loss  # type: ignore[no-any-return]

    trainer = make_trainer(
        None, regression_batches(), step_fn=step, gradient_accumulation_steps=2
    )
    trainer.train()
    assert "backward" not in caplog.text


def test_what_a_hook_steps_in_backward_is_not_said_to_stay_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Regression()
    trainer = trainer_of(model, model.layers[0].parameters())
    before = model.layers[3].weight.clone()
    for each in model.layers[3].parameters():
        each.register_post_accumulate_grad_hook(
            lambda p: torch.optim.SGD([p], lr=0.1).step()
        )
    trainer.train()
    assert not torch.equal(before, model.layers[3].weight)
    told = f"{SENTENCE} model.layers.3.weight, model.layers.3.bias, but hooks"
    assert caplog.text.count(told) == 1
    assert "is in no checkpoint, unless a callback or a module saves it" in caplog.text
    assert "stay as they are" not in caplog.text
