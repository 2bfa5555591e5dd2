"""A method of the model in place of a ``step_fn`` is told what it is bound to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import ConfigError, Trainer


class Ported(nn.Linear):
    """Has its step as a method, as models of other trainers have."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def short(self, batch: Any) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])


class Loss(nn.Module):
    """Has weights of its own, and computes the loss of a model."""

    def of_model(self, model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])


def make_trainer(model: nn.Module, step_fn: Any) -> Trainer:
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))]
    rates = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, batches, optimizer=rates, step_fn=step_fn, num_epochs=1)


@pytest.mark.parametrize("name", ["training_step", "short"])
def test_a_bound_method_of_the_model_is_refused_with_what_to_pass(name: str) -> None:
    model = Ported(3, 2)
    with pytest.raises(ConfigError) as refused:
        make_trainer(model, getattr(model, name))
    assert str(refused.value) == (
        f"step_fn is '{name}', which cannot be called as step_fn(model, batch): it is "
        f"bound to its Ported; pass the function of the class, Ported.{name}, with the "
        "parameters self, which is the model then, and batch alone"
    )


def test_what_is_to_be_passed_instead_trains() -> None:
    trainer = make_trainer(Ported(3, 2), Ported.short)
    trainer.train()
    assert trainer.update == 1


def test_a_method_of_another_module_that_takes_model_and_batch_trains() -> None:
    trainer = make_trainer(nn.Linear(3, 2), Loss().of_model)
    trainer.train()
    assert trainer.update == 1
