"""The look at the first batches: what it finds, and that it leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainbus_evaluation import EvaluationCallback
from training import (
    Callback,
    ConfigError,
    EarlyStoppingCallback,
    MetricError,
    PluginError,
    Trainer,
)
from training.plugin import rng_state


class Net(nn.Module):
    """Has statistics, dropout and a module that its owner keeps in eval mode."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
        )

    def forward(self, x):
        return self.layers(x)


class Draws(Dataset):
    """Each row draws from every global generator and from two of its own."""

    def __init__(self, count=8):
        self.count = count
        self.torchs = torch.Generator().manual_seed(1)
        self.pythons, self.numpys = random.Random(1), np.random.default_rng(1)
        self.olds = np.random.RandomState(1)
        self.reads = 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        noise = random.random() + np.random.rand() + self.pythons.random()
        noise += self.numpys.random() + self.olds.rand()
        noise = torch.rand(3) + torch.rand(3, generator=self.torchs) + noise
        return index + noise, index % 2


def make_trainer(val_dataloader, *callbacks, num_epochs=2, **options):
    torch.manual_seed(0)
    model = Net()
    generator = torch.Generator().manual_seed(3)
    data = [(torch.randn(4, 3, generator=generator), torch.tensor([0, 1, 0, 1]))] * 4
    return Trainer(
        model,
        data,
        val_dataloader,
        SGD(model.parameters(), lr=0.1),
        callbacks=list(callbacks),
        loss_fn=lambda *given: cross_entropy(*given),  # to be measured
        num_epochs=num_epochs,
        seed=0,
        device="cpu",
        **options,
    )


class Careless:
    """An evaluator that forgets eval mode: it moves statistics and draws numbers."""

    def __init__(self):
        self.trainer = None
        self.sizes = []

    def evaluate(self, dataloader):
        self.sizes.append(len(list(dataloader)))
        model = self.trainer.model
        model.train()
        with torch.no_grad():
            losses = [cross_entropy(model(x), y).item() for x, y in dataloader]
        return {"loss": sum(losses) / len(losses)}


def shuffled(workers=0, persistent=False):
    return DataLoader(
        Draws(),
        batch_size=2,
        shuffle=True,
        generator=torch.Generator().manual_seed(5),
        num_workers=workers,
        persistent_workers=persistent,
    )


def end_of(sanity_batches, loader, resume=None, save=None):
    """Return all that a run ends with: history, weights, statistics, generators."""
    evaluator = Careless()
    callback = EvaluationCallback(evaluator, sanity_batches=sanity_batches)
    trainer = evaluator.trainer = make_trainer(loader, callback)
    if save is not None:

        class Saves(Callback):
            def on_checkpoint(self, trainer):
                if trainer.epoch == 1:
                    trainer.save_checkpoint(save)

        trainer.bus.register(Saves())
    if resume is not None:
        trainer.load_checkpoint(resume)
    trainer.train()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]
    return rows, trainer.model.state_dict(), rng_state(), trainer.requests


def assert_equal(one, other):
    rows, weights, drawn, requests = one
    assert (rows, requests) == (other[0], other[3])
    for name, value in weights.items():
        assert torch.equal(value, other[1][name]), name
    for name, state in drawn.items():
        assert str(state) == str(other[2][name]), name
    assert torch.equal(drawn["torch"], other[2]["torch"])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(shuffled, id="in this process"),
        pytest.param(lambda: shuffled(2), id="with workers"),
        pytest.param(lambda: shuffled(2, True), id="with workers that persist"),
        pytest.param(lambda: {"a": shuffled(), "b": shuffled()}, id="several loaders"),
    ],
)
def test_a_run_ends_as_it_would_without_the_look(make):
    loaders = make(), make()
    assert_equal(end_of(2, loaders[0]), end_of(0, loaders[1]))
    for each in loaders:
        if isinstance(each, DataLoader):  # workers that persist are its owner's to end
            each._iterator = None


def test_a_careless_evaluator_would_leave_a_trace_by_itself():
    """The negative control: one more evaluation shows in weights and numbers."""
    loader = shuffled()

    class Twice(Careless):
        def evaluate(self, dataloader):
            super().evaluate(dataloader)
            return super().evaluate(dataloader)

    evaluator = Twice()
    callback = EvaluationCallback(evaluator, sanity_batches=0)
    trainer = evaluator.trainer = make_trainer(loader, callback)
    trainer.train()
    statistics = end_of(0, shuffled())[1]["layers.1.running_mean"]
    assert not torch.equal(trainer.model.layers[1].running_mean, statistics)


def test_a_resumed_run_ends_as_one_that_was_left_alone(tmp_path):
    deterministic = [(torch.ones(4, 3), torch.tensor([0, 1, 1, 0]))] * 3
    whole = end_of(1, deterministic, save=tmp_path / "half.pt")
    assert_equal(end_of(1, deterministic, resume=tmp_path / "half.pt"), whole)


@pytest.mark.parametrize("workers", [0, 1])
def test_only_the_first_batches_are_read(workers):
    loader = shuffled(workers)
    evaluator = Careless()
    callback = EvaluationCallback(evaluator, sanity_batches=3)
    evaluator.trainer = make_trainer(loader, callback, num_epochs=1)
    evaluator.trainer.train()
    assert evaluator.sizes == [3, 4]
    in_this_process = 3 * 2 + 2 * 4 * 2  # the look, and two passes of four batches
    assert loader.dataset.reads == (0 if workers else in_this_process)


class Returns:
    """An evaluator of somebody's own, asking of its loader what a DataLoader has."""

    def __init__(self, *results):
        self.results = results
        self.calls = 0

    def evaluate(self, dataloader):
        assert len(dataloader.dataset) == 8
        assert dataloader.batch_size == 2
        self.calls += 1
        return self.results[min(self.calls, len(self.results)) - 1]


class Fails:
    def evaluate(self, dataloader):
        raise ZeroDivisionError("of its own")


class AlsoMeasures(Callback):
    """Delivers a metric of the same name."""

    name = "also"

    def metric_names(self):
        return ["accuracy"]

    def evaluate(self):
        return {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("evaluator", "others", "error", "told"),
    [
        pytest.param(
            Returns({"accuracy": 1.0}),
            [AlsoMeasures()],
            PluginError,
            "'accuracy' comes from both",
            id="a metric that comes twice",
        ),
        pytest.param(
            Returns({"train_loss": 1.0}),
            [],
            PluginError,
            "'train_loss' comes from both 'trainer'",
            id="the trainer's own metric",
        ),
        pytest.param(
            Returns({"lr": 1.0}), [], PluginError, "named 'lr'", id="a column's name"
        ),
        pytest.param(
            Returns({3: 1.0}), [], PluginError, "named 3", id="a name that is no text"
        ),
        pytest.param(
            Returns({"acc": 1.0}),
            [EarlyStoppingCallback("accuracy")],
            MetricError,
            "reports: acc, train_loss",
            id="a watched metric that is not delivered",
        ),
        pytest.param(
            Returns([0.5]),
            [],
            ConfigError,
            "returned list; return a mapping",
            id="list",
        ),
        pytest.param(
            Returns(None), [], ConfigError, "returned NoneType; return", id="nothing"
        ),
        pytest.param(
            Returns({"text": "good"}),
            [],
            ConfigError,
            "returned no number, but {'text': 'str'}",
            id="no number",
        ),
        pytest.param(Fails(), [], ZeroDivisionError, "of its own", id="its own error"),
    ],
)
def test_what_an_evaluation_gets_wrong_costs_no_step(evaluator, others, error, told):
    trainer = make_trainer(shuffled(), EvaluationCallback(evaluator), *others)
    with pytest.raises(error) as raised:
        trainer.train()
    assert told in str(raised.value)
    assert (trainer.step, trainer.history) == (0, [])


def test_an_error_says_when_it_was_and_how_to_leave_the_look_out():
    with pytest.raises(ZeroDivisionError) as raised:
        make_trainer(shuffled(), EvaluationCallback(Fails())).train()
    assert any("sanity_batches: 0" in note for note in raised.value.__notes__)


@pytest.mark.parametrize(
    ("value", "in_run"),
    [
        pytest.param(np.float32(0.5), 0.5, id="a numpy number"),
        pytest.param(np.array(0.5), 0.5, id="a 0-d array"),
        pytest.param(np.int64(2), 2.0, id="a numpy count"),
        pytest.param(torch.tensor(0.5), 0.5, id="a 0-d tensor"),
        pytest.param(torch.tensor(0.5, requires_grad=True), 0.5, id="with a gradient"),
        pytest.param(float("inf"), float("inf"), id="an infinity"),
        pytest.param(torch.tensor([0.5, 0.5]), None, id="several values"),
        pytest.param("0.5", None, id="a text"),
        pytest.param(np.bool_(True), None, id="a truth value"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_the_numbers_that_an_evaluator_returns_are_metrics(value, in_run):
    evaluator = Returns({"loss": 1.0, "own": value})
    trainer = make_trainer(shuffled(), evaluator=evaluator)
    trainer.train()
    assert trainer.history[-1].get("own") == in_run


def test_a_value_that_is_not_finite_is_a_value():
    trainer = make_trainer(shuffled(), evaluator=Returns({"loss": float("nan")}))
    trainer.train()
    assert np.isnan(trainer.history[-1]["val_loss"])


def test_an_evaluator_that_declares_its_names_is_believed():
    class Declares(Returns):
        def metric_names(self, dataloader):
            return ["loss", "rare"]

    evaluator = Declares({"loss": 1.0}, {"loss": 1.0, "rare": 2.0})
    trainer = make_trainer(
        shuffled(), EarlyStoppingCallback("rare", patience=9), evaluator=evaluator
    )
    trainer.train()
    assert trainer.history[-1]["rare"] == 2.0


class Position(list):
    """A loader that keeps its position, as one that can be resumed does."""

    def __init__(self, batches):
        super().__init__(batches)
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Stream(IterableDataset):
    """Rows without a number."""

    def __iter__(self):
        return iter([(torch.ones(3), 1)] * 4)


@pytest.mark.parametrize(
    ("loader", "is_looked_at"),
    [
        pytest.param(
            Position([(torch.ones(2, 3), torch.tensor([0, 1]))]), False, id="a position"
        ),
        pytest.param(DataLoader(Stream(), batch_size=2), True, id="a stream"),
        pytest.param(
            DataLoader(Stream(), batch_size=2, num_workers=2), True, id="in workers"
        ),
    ],
)
def test_other_loaders_are_looked_at_unless_that_would_move_them(loader, is_looked_at):
    evaluator = Careless()
    evaluator.trainer = make_trainer(loader, evaluator=evaluator, num_epochs=1)
    evaluator.trainer.train()
    assert len(evaluator.sizes) == 1 + is_looked_at


def test_nobody_else_hears_of_the_look():
    class Hears(Callback):
        def __init__(self):
            self.heard = []

        def evaluate(self, reason):
            self.heard.append(reason)

        def on_metrics(self):
            self.heard.append("on_metrics")

        def on_train_begin(self, trainer):
            self.heard.append(f"begins with {len(trainer.metrics)} metrics")

    hears = Hears()
    make_trainer(shuffled(), EvaluationCallback(), hears, num_epochs=1).train()
    assert hears.heard == ["begins with 0 metrics", "epoch_end", "on_metrics"]


def test_answers_are_generated_under_the_runs_autocast_from_the_first_look_on():
    seen = []

    class Sees(Returns):
        def evaluate(self, dataloader):
            seen.append(
                (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))
            )
            return super().evaluate(dataloader)

    trainer = make_trainer(shuffled(), evaluator=Sees({"a": 1.0}), precision="bf16")
    trainer.train()
    assert seen == [(True, torch.bfloat16)] * 3
