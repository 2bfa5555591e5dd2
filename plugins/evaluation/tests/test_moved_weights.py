"""What a step function trains while it is measured is told of before training."""

import copy
import logging

import pytest
import torch
from torch import nn

from trainbus_evaluation import EvaluationCallback
from training import Trainer

ROWS = [(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(2)]


class Student(nn.Linear):
    """Has a teacher that follows it, ``always`` or while it trains."""

    def __init__(self, always, by_data=False):
        super().__init__(3, 2)
        self.teacher = nn.Linear(3, 2).requires_grad_(False)
        self.always, self.by_data = always, by_data


def step(model, batch):
    x, y = batch
    if model.training or model.always:
        weight = model.teacher.weight
        if model.by_data:
            weight.data = weight.data * 0.9 + model.weight.data * 0.1
        else:
            with torch.no_grad():
                weight.lerp_(model.weight, 0.1)
    return {"loss": (model(x) - y - model.teacher(x)).square().mean(), "weight": len(x)}


def trained(model, **options):
    optimizer = torch.optim.SGD([model.weight, model.bias], lr=0.1)
    Trainer(
        model,
        ROWS,
        ROWS,
        optimizer=optimizer,
        step_fn=step,
        callbacks=[EvaluationCallback(**options)],
        device="cpu",
        plugins=["no:progress", "no:run_record"],
    ).train()
    return model.teacher.weight


@pytest.mark.parametrize("by_data", [False, True])
@pytest.mark.parametrize(("always", "times"), [(True, 1), (False, 0)])
def test_a_teacher_that_evaluations_move_is_named(always, times, by_data, caplog):
    with caplog.at_level(logging.WARNING):
        trained(Student(always, by_data))
    told = "evaluating changes the parameters teacher.weight, so that a run"
    assert caplog.text.count(told) == times


@pytest.mark.parametrize("by_data", [False, True])
def test_the_look_before_training_moves_no_teacher(by_data):
    model = Student(True, by_data)
    first, second = (
        trained(copy.deepcopy(model), sanity_batches=count) for count in (0, 2)
    )
    assert torch.equal(first, second)
