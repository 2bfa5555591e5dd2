"""An evaluator of another model than the trained one is told of before training."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trainbus_evaluation import Evaluator
from training import Callback, Trainer

DATA = [(torch.ones(2, 3) * i, torch.tensor([0, 1])) for i in range(2)]
TOLD = "evaluator's model, a Linear, shares no parameter with the Sequential"


class Averages(Callback):
    """Keeps an average in a module of its own."""

    name = "averages"

    def __init__(self, average):
        self.average = average

    def on_step_end(self, trainer):
        self.average.update_parameters(trainer.model)


class Follows:
    """A loss that moves a teacher, whose weights are an average."""

    def __init__(self, teacher):
        self.teacher = teacher

    def __call__(self, model, batch):
        if model.training:
            self.teacher.update_parameters(model)
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


class Distance:
    """Measures by a ``model`` of its own, which is never trained."""

    def __init__(self, judged):
        self.model, self.judged = nn.Linear(3, 2), judged

    def evaluate(self, dataloader):
        x, _ = next(iter(dataloader))
        return {"distance": (self.model(x) - self.judged(x)).square().mean()}


def set_up(make, caplog):
    """Train with what ``make`` returns for a model; return what was told."""
    model = nn.Sequential(nn.Linear(3, 2))
    given = {"loss_fn": nn.functional.cross_entropy, **make(model)}
    with caplog.at_level(logging.WARNING):
        Trainer(
            model,
            DATA,
            DATA,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            device="cpu",
            num_epochs=1,
            plugins=["no:progress", "no:run_record"],
            **given,
        ).train()
    return caplog.text


def of(model):
    return Evaluator(model, loss_fn=nn.functional.cross_entropy)


def averaged(model):
    average = AveragedModel(model)
    return {"evaluator": of(average), "callbacks": [Averages(average)]}


def followed(model):
    average = AveragedModel(model)
    return {"evaluator": of(average), "step_fn": Follows(average), "loss_fn": None}


def test_a_copy_that_nobody_moves_is_told_of_with_both_names(caplog):
    told = set_up(lambda model: {"evaluator": of(copy.deepcopy(model[0]))}, caplog)
    assert told.count(TOLD) == 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda model: {"evaluator": of(model)}, id="itself"),
        pytest.param(lambda model: {"evaluator": of(model[0])}, id="a part"),
        pytest.param(
            lambda model: {"evaluator": of(nn.Sequential(model, nn.ReLU()))},
            id="a wrapper",
        ),
        pytest.param(
            lambda model: {"evaluator": of(torch.compile(model, backend="eager"))},
            id="compiled",
        ),
        pytest.param(averaged, id="an average that a callback moves"),
        pytest.param(followed, id="an average that the loss moves"),
        pytest.param(
            lambda model: {"evaluator": Distance(model)}, id="a measure of its own"
        ),
    ],
)
def test_what_is_trained_or_follows_it_needs_no_word(make, caplog):
    assert "shares no parameter" not in set_up(make, caplog)
