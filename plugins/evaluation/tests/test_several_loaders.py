"""Several validation loaders: each is measured, wrapped and shielded by its name."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import (
    Callback,
    ConfigError,
    DataError,
    EarlyStoppingCallback,
    MetricError,
    PluginError,
    Trainer,
)


def rows(seed, count=8):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator)
    return TensorDataset(inputs, torch.arange(count) % 2)


def loader(seed=0, **options):
    return DataLoader(rows(seed), batch_size=4, **options)


def make_trainer(val_dataloader, *callbacks, **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Trainer(
        model,
        options.pop("train_dataloader", loader(9)),
        val_dataloader,
        SGD(model.parameters(), lr=0.1),
        callbacks=list(callbacks),
        loss_fn=cross_entropy,
        seed=0,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize(
    ("several", "names"),
    [
        pytest.param([loader(1), loader(2)], ["0", "1"], id="a list"),
        pytest.param((loader(1), loader(2)), ["0", "1"], id="a tuple"),
        pytest.param(
            {"clean": loader(1), "noisy": loader(2)}, ["clean", "noisy"], id="a mapping"
        ),
        pytest.param(
            {"clean": list(loader(1)), "noisy": list(loader(2))},
            ["clean", "noisy"],
            id="a mapping of lists of batches",
        ),
    ],
)
def test_each_is_measured_under_its_name(several, names):
    trainer = make_trainer(several, EvaluationCallback(metrics=["accuracy"]))
    trainer.train()
    row = trainer.history[0]
    wanted = {f"{metric}/{n}" for metric in ("val_loss", "accuracy") for n in names}
    assert wanted == {name for name in row if "/" in name}
    assert "val_loss" not in row
    for seed, name in enumerate(names, 1):
        alone = Evaluator(trainer.model, metrics=["loss", "accuracy"])
        assert row[f"val_loss/{name}"] == alone.evaluate(loader(seed))["loss"]


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(list(loader(1)), id="a list of batches"),
        pytest.param(tuple(loader(1)), id="a tuple of batches"),
        pytest.param(loader(1), id="a loader"),
    ],
)
def test_one_loader_stays_one(one):
    trainer = make_trainer(one)
    trainer.train()
    assert trainer.val_dataloader is one
    assert "val_loss" in trainer.history[0]


def test_a_list_of_batches_is_not_read_to_tell_what_it_is():
    class Lazy(list):
        def __iter__(self):
            raise AssertionError("read")

    make_trainer(Lazy(loader(1)), train_dataloader=Lazy(loader(9)))


def test_a_monitor_names_the_loader_too():
    several = {"clean": loader(1), "noisy": loader(2)}
    trainer = make_trainer(several, EarlyStoppingCallback("val_loss/noisy"))
    trainer.train()
    trainer = make_trainer(several, EarlyStoppingCallback("val_loss"))
    with pytest.raises(MetricError, match=r"val_loss/clean, val_loss/noisy"):
        trainer.train()
    assert trainer.step == 0


class Counts:
    """An evaluator of somebody's own; it declares nothing."""

    def evaluate(self, dataloader):
        return {"batches": len(dataloader), "loss": 0.5}


def test_an_evaluator_of_ones_own_is_called_for_each():
    trainer = make_trainer([loader(1), loader(2, drop_last=True)], evaluator=Counts())
    trainer.train()
    row = trainer.history[0]
    assert (row["batches/0"], row["batches/1"], row["val_loss/1"]) == (2.0, 2.0, 0.5)


def test_predictions_say_which_loader_they_are_of():
    class Records(Counts):
        def evaluate(self, dataloader):
            return {"loss": 0.5, "records": [{"answer": "yes"}]}

    callback = EvaluationCallback(Records())
    make_trainer({"clean": loader(1), "noisy": loader(2)}, callback).train()
    assert callback.predictions == [
        {"answer": "yes", "loader": "clean"},
        {"answer": "yes", "loader": "noisy"},
    ]


class Hears(Callback):
    """Keeps what it is told of predicted rows."""

    hook_api = ">=1.2,<2"

    def on_predictions(self, trainer, records):
        self.heard = trainer.step, records


def test_who_listens_is_told_of_the_rows_of_all_loaders():
    class Records(Counts):
        def evaluate(self, dataloader):
            return {"loss": 0.5, "records": [{"answer": "yes"}]}

    hears = Hears()
    several = {"clean": loader(1), "noisy": loader(2)}
    make_trainer(several, EvaluationCallback(Records()), hears, num_epochs=1).train()
    assert hears.heard == (
        2,
        [
            {"answer": "yes", "loader": "clean"},
            {"answer": "yes", "loader": "noisy"},
        ],
    )


class Wraps(Callback):
    """Replaces each validation loader by what ``make`` makes of it."""

    def __init__(self, make):
        self.make = make
        self.seen = []

    def wrap_dataloader(self, dataloader, stage):
        if stage == "train":
            return None
        self.seen.append(dataloader)
        return self.make(dataloader)


def test_each_is_wrapped_again_at_each_train():
    given = {"clean": loader(1), "noisy": loader(2)}
    wraps = Wraps(lambda each: list(each)[:1])
    trainer = make_trainer(given, wraps)
    for _ in range(2):
        trainer.train()
        assert [len(each) for each in trainer.val_dataloader.values()] == [1, 1]
    assert wraps.seen == [*given.values()] * 2


@pytest.mark.parametrize(
    ("wrapped", "error", "told"),
    [
        pytest.param([], DataError, "val_dataloader gave no batch", id="an empty one"),
        pytest.param(
            DataLoader(rows(0), batch_size=99, drop_last=True),
            DataError,
            "val_dataloader gave no batch",
            id="a DataLoader of length 0",
        ),
        pytest.param(iter([1]), PluginError, "list_iterator", id="an iterator"),
        pytest.param(7, PluginError, "'Wraps' returned 7 from", id="a number"),
    ],
)
def test_what_a_plugin_wraps_it_in_is_believed_and_not_replaced(wrapped, error, told):
    trainer = make_trainer(loader(1), Wraps(lambda each: wrapped))
    with pytest.raises(error, match=told):
        trainer.train()
    assert trainer.step == 0


def test_an_empty_one_among_several_is_named():
    trainer = make_trainer({"clean": loader(1), "noisy": []})
    with pytest.raises(DataError, match=r"val_dataloader\['noisy'\] gave no batch"):
        trainer.train()


def test_one_that_is_exhausted_after_a_look_is_told_with_the_way_out():
    batches = iter(list(loader(1)))

    class Once:
        def __iter__(self):
            yield from batches

    with pytest.raises(DataError, match=r"gave no batch; .* each time that it is"):
        make_trainer(Once(), num_epochs=2).train()


def test_an_evaluator_that_is_falsy_is_the_one_that_is_used():
    class Empty(Counts):
        def __len__(self):
            return 0

    trainer = make_trainer(loader(1), evaluator=Empty())
    trainer.train()
    assert trainer.history[0]["batches"] == 2.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({"val_dataloader": {}}, "empty mapping", id="no loader"),
        pytest.param(
            {"val_dataloader": {"x": torch.zeros(2)}},
            r"\['x'\] is a Tensor",
            id="batch",
        ),
        pytest.param(
            {"val_dataloader": {1: loader()}}, "name is a text", id="a number"
        ),
        pytest.param({"val_dataloader": {" ": loader()}}, "name is a text", id="blank"),
        pytest.param(
            {"val_dataloader": {"x": iter([])}},
            r"\['x'\] is an iterator",
            id="one pass",
        ),
        pytest.param(
            {"val_dataloader": [loader(), 5]}, r"\['1'\] is a int", id="a mixed list"
        ),
        pytest.param(
            {"val_dataloader": {"x": [loader()]}}, r"\['x'\] is a list", id="nested"
        ),
        pytest.param(
            {"val_dataloader": None, "train_dataloader": [loader(), loader()]},
            "a run trains on one loader",
            id="several to train on",
        ),
    ],
)
def test_what_is_no_loader_is_refused_when_it_is_passed(options, told):
    with pytest.raises(ConfigError, match=told):
        make_trainer(**options)


def test_workers_of_each_are_shielded_and_ended():
    several = [loader(seed, num_workers=1) for seed in (1, 2)]
    trainer = make_trainer(several)
    seen = []

    class Looks(Callback):
        def on_step_end(self):
            seen.append([each.worker_init_fn is not None for each in several])

    trainer.bus.register(Looks())
    trainer.train()
    assert seen == [[True, True]] * 2
    assert [each.worker_init_fn for each in several] == [None, None]
