"""Whether the optimizer trains what the model asks to be trained."""

from __future__ import annotations

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
