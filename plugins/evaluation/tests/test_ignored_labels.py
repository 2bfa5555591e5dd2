"""Accuracy and F1 leave out the labels that the loss ignores, and no others."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.optim import SGD

from trainbus_evaluation import Evaluator
from training import DataError, Trainer

PREDICTED = torch.tensor([1, 2, 3, 1, 2, 3])
X = 99  # stands for what is ignored
LABELS = torch.tensor([1, 2, X, 2, X, 3])
#: Of class 1: 2 * 1 / (2 + 1); of 2: 2 * 1 / (1 + 2); of 3: 1.
BY_HAND = {"accuracy": 3 / 4, "f1": pytest.approx((2 / 3 + 2 / 3 + 1) / 3)}


class Predicts(nn.Module):
    """Returns logits (N, 4) that are highest at the classes that it is given."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, classes):
        return nn.functional.one_hot(classes, 4) * self.scale


def alone(loss_fn, batch):
    evaluator = Evaluator(Predicts(), metrics=["accuracy", "f1"], loss_fn=loss_fn)
    return evaluator.evaluate([batch])


def in_a_run(loss_fn, batch, *others):
    model = Predicts()
    trainer = Trainer(
        model,
        [batch],
        val_dataloader=[*others, batch],
        optimizer=SGD(model.parameters(), lr=1e-6),
        loss_fn=loss_fn,
        plugins=[
            {"evaluation": {"metrics": ["accuracy", "f1"]}},
            "no:run_record",
            "no:progress",
        ],
        device="cpu",
    )
    trainer.train()
    return {name: trainer.history[-1][name] for name in ("accuracy", "f1")}


LOSSES = [
    pytest.param(lambda n: nn.CrossEntropyLoss(ignore_index=n), id="module"),
    pytest.param(lambda n: nn.NLLLoss(ignore_index=n), id="module of likelihoods"),
    pytest.param(lambda n: partial(cross_entropy, ignore_index=n), id="partial"),
    pytest.param(lambda n: partial(nll_loss, ignore_index=n), id="of likelihoods"),
]


@pytest.mark.parametrize("measured", [alone, in_a_run])
@pytest.mark.parametrize("ignored", [255, 0, -1, -100])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_the_loss_ignores_is_left_out(loss, ignored, measured):
    labels = torch.where(LABELS == X, ignored, LABELS)
    assert measured(loss(ignored), (PREDICTED, labels)) == BY_HAND


def test_bytes_that_are_ignored_are_left_out():
    labels = torch.where(LABELS == X, 255, LABELS).byte()
    loss = nn.CrossEntropyLoss(ignore_index=255)
    assert alone(loss, (PREDICTED, labels)) == BY_HAND


@pytest.mark.parametrize("measured", [alone, in_a_run])
@pytest.mark.parametrize(
    "loss_fn",
    [
        pytest.param(cross_entropy, id="the function"),
        pytest.param(lambda out, y: cross_entropy(out, y), id="a function of it"),
    ],
)
def test_another_loss_is_taken_to_ignore_what_torchs_does(loss_fn, measured):
    labels = torch.where(LABELS == X, -100, LABELS)
    assert measured(loss_fn, (PREDICTED, labels)) == BY_HAND


def test_where_nothing_is_left_the_ignored_label_is_named():
    loss = nn.CrossEntropyLoss(ignore_index=255)
    batch = (PREDICTED, torch.full((6,), 255))
    with pytest.raises(DataError, match="every label is 255"):
        alone(loss, batch)


def test_a_first_batch_without_a_label_that_counts_ends_no_run():
    nothing = PREDICTED, torch.full((6,), -100)
    labelled = PREDICTED, torch.where(LABELS == X, -100, LABELS)
    loss = nn.CrossEntropyLoss()
    assert in_a_run(loss, labelled, nothing) == in_a_run(loss, labelled)


def test_a_run_without_any_label_to_measure_ends_with_its_reason():
    with pytest.raises(DataError, match="every label is -100"):
        in_a_run(nn.CrossEntropyLoss(), (PREDICTED, torch.full((6,), -100)))


def test_the_loss_of_a_run_tells_where_two_dimensions_may_count_classes():
    # One row of logits (1, 4, 4): columns are highest at 3, 0, 1, 2, and rows at the
    # classes given.
    batch = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[3, 0, 1, 0]])
    assert in_a_run(nn.CrossEntropyLoss(), batch)["accuracy"] == 3 / 4
