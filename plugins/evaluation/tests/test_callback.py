"""What EvaluationCallback promises inside a run."""

import random
from collections import OrderedDict, UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout
from torch.optim import SGD
from torch.utils.data import DataLoader

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Callback, ConfigError, MetricError, Trainer

DATA = [(torch.ones(2, 3) * i, torch.tensor([0, 1])) for i in range(4)]


class Calls:
    """An evaluator that counts its calls."""

    def __init__(self, **results):
        self.results = results or {"loss": 1.0}
        self.steps = []
        self.trainer = None

    def evaluate(self, dataloader):
        self.steps.append(self.trainer.step)
        return self.results


def own_loss(outputs, targets):
    """Not torch's own function: what it is a mean over is measured."""
    return cross_entropy(outputs, targets)


def make_trainer(callback, loader=DATA, num_epochs=2, extra=(), **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Trainer(
        model,
        loader,
        val_dataloader=options.pop("val_dataloader", DATA),
        optimizer=SGD(model.parameters(), lr=0.1),
        loss_fn=options.pop("loss_fn", own_loss),
        callbacks=[callback, *extra],
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        **options,
    )


class Unknown(list):
    """A loader without a length."""

    __len__ = None


@pytest.mark.parametrize(
    ("options", "run", "steps"),
    [
        pytest.param({}, {}, [4, 8], id="every epoch"),
        pytest.param(
            {"every_n_epochs": 2}, {"num_epochs": 5}, [8, 16, 20], id="and the last one"
        ),
        pytest.param({"every_n_epochs": None}, {}, [8], id="or only the last one"),
        pytest.param(
            {"every_n_steps": 3}, {}, [3, 4, 6, 8], id="steps and epochs together"
        ),
        pytest.param(
            {"every_n_steps": 2}, {}, [2, 4, 6, 8], id="never twice at one step"
        ),
        pytest.param(
            {"every_n_steps": 2, "every_n_epochs": 0},
            {},
            [2, 4, 6, 8],
            id="steps alone",
        ),
        pytest.param({}, {"max_steps": 6}, [4, 6], id="max_steps ends with one"),
        pytest.param(
            {"every_n_steps": 3}, {"max_steps": 6}, [3, 4, 6], id="and not with two"
        ),
        pytest.param({}, {"loader": Unknown(DATA)}, [4, 8], id="without a length"),
    ],
)
def test_it_evaluates_after_these_steps(options, run, steps):
    evaluator = Calls()
    options = {"sanity_batches": 0, **options}
    trainer = make_trainer(EvaluationCallback(evaluator, **options), **run)
    evaluator.trainer = trainer
    trainer.train()
    assert evaluator.steps == steps


def test_the_loss_is_val_loss_in_the_run_and_what_is_no_number_is_dropped():
    evaluator = Calls(
        loss=2, accuracy=torch.tensor(0.5), predictions=["yes"], name="x", done=True
    )
    trainer = make_trainer(EvaluationCallback(evaluator), num_epochs=1)
    evaluator.trainer = trainer
    trainer.train()
    row = trainer.history[0]
    assert (row["val_loss"], row["accuracy"]) == (2.0, 0.5)
    assert not {"predictions", "name", "done", "loss"} & set(row)


def test_without_an_evaluator_the_loss_is_the_training_loss_on_the_validation_data():
    trainer = make_trainer(EvaluationCallback(metrics=["accuracy"]), num_epochs=1)
    trainer.train()
    inputs = torch.cat([x for x, _ in DATA])
    targets = torch.cat([y for _, y in DATA])
    logits = trainer.model(inputs)
    row = trainer.history[0]
    assert row["val_loss"] == pytest.approx(cross_entropy(logits, targets).item())
    assert row["accuracy"] == (logits.argmax(-1) == targets).float().mean().item()


class Watches(Callback):
    """Requires a metric."""

    def __init__(self, metric):
        self.metric = metric

    def on_train_begin(self, trainer):
        trainer.require_metric(self.metric, "watches.monitor")


@pytest.mark.parametrize(
    ("evaluator", "metric", "is_refused"),
    [
        pytest.param(None, "val_loss", False, id="a declared name is known"),
        pytest.param(None, "val_los", True, id="another one is refused"),
        pytest.param(
            Calls(anything=1.0), "anything", False, id="a foreign one may give any name"
        ),
    ],
)
def test_names_are_known_before_the_first_step(evaluator, metric, is_refused):
    trainer = make_trainer(EvaluationCallback(evaluator), extra=[Watches(metric)])
    if evaluator is not None:
        evaluator.trainer = trainer
    if is_refused:
        with pytest.raises(MetricError, match="val_loss"):
            trainer.train()
    else:
        trainer.train()


@pytest.mark.parametrize(
    ("evaluator", "metric", "way"),
    [
        (
            Calls(mae=1.0),
            "val_loss",
            "train_loss; val_loss is the 'loss' of what",
        ),
        (
            Calls(mae=1.0),
            "val_loss/clean",
            "return 'loss', too, as in Evaluator",
        ),
        (Calls(mae=1.0), "mean", r"reports: mae, train_loss\n"),
        (None, "f1", r"EvaluationCallback\(metrics=\['f1'\]\) measures f1\n"),
        (None, "val_accuracy", r"\(metrics=\['accuracy'\]\) measures accuracy\n"),
        (None, "val_mae", r"\(metrics=\['mae'\]\) measures mae\n"),
        (None, "val_los", r"\(did you mean 'val_loss'\?\)\n"),
    ],
)
def test_a_metric_that_can_be_had_is_refused_with_the_way_to_it(evaluator, metric, way):
    trainer = make_trainer(EvaluationCallback(evaluator), extra=[Watches(metric)])
    if evaluator is not None:
        evaluator.trainer = trainer
    with pytest.raises(MetricError, match=way):
        trainer.train()
    assert trainer.step == 0


def test_a_run_without_validation_data_is_refused_before_the_first_step():
    trainer = make_trainer(EvaluationCallback(), val_dataloader=None)
    with pytest.raises(ConfigError, match="val_dataloader is None"):
        trainer.train()
    assert trainer.step == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluator": 3}, "no evaluate"),
        ({"evaluator": Calls(), "metrics": ["loss"]}, "set them on the evaluator"),
        ({"metrics": [2]}, "metrics.0. is 2, but must be"),
        ({"metrics": "f1"}, "metrics is 'f1', but must be"),
        ({"metrics": []}, "metrics is .., but must be at least 1 item"),
        ({"every_n_steps": -1}, "every_n_steps is -1"),
        (
            {"evaluator": Calls(), "keep_predictions": True},
            "needs a TaskEvaluator or a VQAEvaluator",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_on_construction(options, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationCallback(**options)


def test_a_metric_that_the_evaluator_has_not_is_refused_before_the_first_step():
    trainer = make_trainer(EvaluationCallback(metrics=["acuracy"]))
    with pytest.raises(ConfigError, match=r"'acuracy' \(did you mean 'accuracy'\?\)"):
        trainer.train()
    assert trainer.step == 0


def test_an_evaluator_on_another_device_than_the_run_is_refused():
    evaluator = Evaluator(nn.Linear(3, 2), device="cpu")
    evaluator._runner.device = torch.device("cuda:0")  # as where there is one
    with pytest.raises(ConfigError, match="leave the evaluator's device out"):
        make_trainer(EvaluationCallback(evaluator)).train()


class Draws(Callback):
    """Measures what it draws from each global generator."""

    def evaluate(self, trainer, reason):
        return {"drawn": torch.rand(()).item() + random.random() + np.random.rand()}


def drops_out(outputs, targets):
    """Draws numbers in training, and more of them in an evaluation."""
    return cross_entropy(dropout(outputs), targets)


@pytest.mark.parametrize(
    "extra", [(), (Draws(),)], ids=["alone", "beside one that draws"]
)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("cadence", [{}, {"every_n_steps": 1}], ids=str)
def test_training_draws_the_same_numbers_however_it_is_measured(
    cadence, shuffle, extra
):
    plain = make_trainer(Watches("train_loss"), val_dataloader=None, loss_fn=drops_out)
    plain.train()
    loader = DataLoader(DATA, batch_size=None, shuffle=shuffle)  # draws a seed, too
    measured = make_trainer(
        EvaluationCallback(**cadence),
        val_dataloader=loader,
        loss_fn=drops_out,
        extra=extra,
    )
    measured.train()
    assert torch.equal(plain.model.weight, measured.model.weight)


def test_evaluation_changes_no_weight_and_draws_no_number():
    plain = make_trainer(Watches("train_loss"), val_dataloader=None)
    plain.train()
    measured = make_trainer(EvaluationCallback(metrics=["accuracy", "f1"]))
    measured.train()
    assert torch.equal(plain.model.weight, measured.model.weight)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param("every_n_epochs", -1, id="a cadence below none"),
        pytest.param("every_n_steps", -1, id="a cadence in steps below none"),
        pytest.param("max_new_tokens", 0, id="an answer of no token"),
        pytest.param("num_beams", 0, id="a search without a beam"),
    ],
)
def test_a_number_out_of_range_is_refused_by_the_constructor(option, value):
    with pytest.raises(ConfigError, match=f"evaluation.{option} is {value}, but"):
        EvaluationCallback(**{option: value})


@pytest.mark.parametrize("looks_first", [True, False])
def test_a_loss_that_differentiates_is_told_how_to_do_so_in_an_evaluation(looks_first):
    def step(model, batch):
        rows = batch[0].clone().requires_grad_()
        loss = cross_entropy(model(rows), batch[1])
        return loss + torch.autograd.grad(loss, rows, create_graph=True)[0].norm()

    def works(model, batch):
        with torch.enable_grad():
            return step(model, batch)

    evaluation = EvaluationCallback(sanity_batches=int(looks_first))
    with pytest.raises(RuntimeError, match="does not require grad") as raised:
        make_trainer(evaluation, loss_fn=None, step_fn=step).train()
    notes = "\n".join(raised.value.__notes__)
    assert notes.count("put what is differentiated below torch.enable_grad()") == 1
    assert ("this was the first" in notes) == looks_first
    assert "sanity_batches" not in notes
    make_trainer(EvaluationCallback(), loss_fn=None, step_fn=works).train()


@pytest.mark.parametrize("sanity_batches", [0, 1])
def test_an_evaluator_measures_in_eval_mode_and_records_no_gradients(sanity_batches):
    found = []

    class Looks:
        def evaluate(self, dataloader):
            loss = trainer.compute_loss(next(iter(dataloader)))[0]
            found.append((trainer.model.training, loss.requires_grad))
            with torch.enable_grad():  # what needs gradients asks for them
                assert trainer.compute_loss(next(iter(dataloader)))[0].requires_grad
            trainer.model.train()  # nor does this reach the next evaluation
            return {"loss": loss.item()}

    callback = EvaluationCallback(Looks(), sanity_batches=sanity_batches)
    trainer = make_trainer(callback)
    trainer.train()
    assert found == [(False, False)] * (2 + sanity_batches)


class Entries(UserDict):
    """Entries of a batch, as tokenizers return them."""


class Named(nn.Linear):
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("kind", [dict, OrderedDict, Entries])
def test_what_a_step_fn_pops_out_of_its_batch_is_in_that_of_all_others(kind):
    """In a list the evaluation and the next epoch have the same batches."""

    def step(model, batch):
        assert type(batch) is kind
        labels = batch.pop("labels")
        return cross_entropy(model(**batch), labels)

    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    batches = [kind(x=x, labels=labels) for _ in range(2)]
    model = Named(3, 2)
    trainer = Trainer(
        model,
        batches,
        batches,
        SGD(model.parameters(), lr=0.1),
        step_fn=step,
        num_epochs=2,
        device="cpu",
        callbacks=[EvaluationCallback(metrics=["loss", "accuracy"])],
    )
    trainer.train()
    assert 0 <= trainer.history[-1]["accuracy"] <= 1
    assert all({*each} == {"x", "labels"} for each in batches)
