"""Metrics of numbers, functions of one's own, and objects that are updated."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import (
    ConfigError,
    DataError,
    MetricError,
    PluginError,
    Trainer,
)
from training.callbacks import EarlyStoppingCallback, ModelCheckpointCallback

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(10, 3, generator=GENERATOR)
Y = torch.randn(10, 2, generator=GENERATOR)


def batches(*sizes, x=X, y=Y):
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def make_model():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def make_trainer(metrics, folder, extra=(), **options):
    model = make_model()
    return Trainer(
        model,
        batches(5, 5),
        options.pop("val_dataloader", batches(4, 4, 2)),
        torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=options.pop("loss_fn", mse_loss),
        num_epochs=options.pop("num_epochs", 2),
        seed=0,
        device="cpu",
        save_dir=folder,
        callbacks=[EvaluationCallback(metrics=metrics), *extra],
        **options,
    )


def largest(outputs, targets):
    """The largest error of all."""
    return (outputs - targets).abs().max()


class Largest:
    """The same, updated batch by batch; counts how often it begins."""

    def __init__(self, name="the_largest"):
        self.name, self.begun = name, 0

    def reset(self):
        self.begun += 1
        self.value = 0.0

    def update(self, outputs, targets):
        self.value = max(self.value, largest(outputs, targets).item())

    def compute(self):
        return self.value

    def measured(self, outputs, targets):
        return largest(outputs, targets)


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 9)], ids=str)
def test_errors_are_means_over_all_numbers_however_rows_are_batched(sizes):
    model, loader = make_model(), batches(*sizes)
    found = Evaluator(model, metrics=["mae", "mse"]).evaluate(loader)
    errors = {"mae": l1_loss, "mse": mse_loss}
    with torch.no_grad():
        for name, error in errors.items():
            assert found[name] == pytest.approx(error(model(X), Y).item(), rel=1e-6)
            each = [error(model(x), y).item() for x, y in loader]
            if len(set(sizes)) > 1:  # the control
                assert found[name] != pytest.approx(sum(each) / len(each), rel=1e-3)


def test_errors_of_half_precision_are_told_in_full():
    outputs, targets = torch.full((3,), 256.0), torch.tensor([0.5, 0.5, 256.0])
    halves = outputs.bfloat16(), targets.bfloat16()
    whole = (halves[0].double() - halves[1].double()).abs().mean().item()
    loader = [{"x": halves[0], "labels": halves[1]}]
    found = Evaluator(Returns(), metrics=["mae"]).evaluate(loader)
    assert found == {"mae": pytest.approx(whole, rel=1e-9)}
    rounded = (halves[0] - halves[1]).abs().double().mean().item()
    assert rounded != pytest.approx(whole, rel=1e-4)  # the control


class Returns(nn.Module):
    """Returns what it is given, as logits."""

    def forward(self, x, labels):
        return SimpleNamespace(logits=x, loss=x.float().mean())


@pytest.mark.parametrize(
    ("outputs", "targets", "told"),
    [
        pytest.param(
            torch.zeros(4, 1), torch.zeros(4), r"are \(4, 1\) of .* \(4,\)", id="shapes"
        ),
        pytest.param(
            torch.zeros(4), torch.zeros(4).long(), "targets .* of int64", id="classes"
        ),
        pytest.param(torch.zeros(4), [0.0] * 4, "the targets are list", id="a list"),
        pytest.param(None, torch.zeros(4), "with no logits", id="no outputs"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(outputs, targets, told):
    class Fixed(Returns):
        def forward(self, x, labels):
            return {"logits": outputs, "loss": x.mean()}

    evaluator = Evaluator(Fixed(), metrics=["mae"])
    with pytest.raises(ConfigError, match=told):
        evaluator.evaluate([{"x": torch.zeros(4), "labels": targets}])


def test_classes_are_not_told_of_numbers_and_the_way_is_told():
    with pytest.raises(ConfigError, match="or numbers with 'mae' and 'mse'"):
        Evaluator(make_model(), metrics=["accuracy"]).evaluate(batches(10))


def test_a_function_is_called_once_with_all_of_the_loader_in_its_order():
    calls = []

    def noted(outputs, targets):
        calls.append((outputs, targets))
        return 0

    model = make_model()
    assert Evaluator(model, metrics=[noted]).evaluate(batches(4, 4, 2)) == {"noted": 0}
    ((outputs, targets),) = calls
    assert torch.equal(targets, Y)
    with torch.no_grad():
        assert torch.allclose(outputs, model(X))
    assert (outputs.device.type, outputs.requires_grad) == ("cpu", False)


def test_what_a_loader_or_a_model_uses_again_is_copied_before():
    class Again:
        def __iter__(self):
            memory = torch.empty(5, 2)
            for part in Y.split(5):
                yield X[:5], memory.copy_(part)

    def kept(outputs, targets):
        return float(torch.equal(targets, Y))

    assert Evaluator(make_model(), metrics=[kept]).evaluate(Again()) == {"kept": 1.0}


def test_a_function_is_computed_in_its_own_precision(tmp_path):
    seen = []

    def dtypes(outputs, targets):
        seen.append((outputs.dtype, (targets @ targets.T).dtype))
        return 0

    make_trainer([dtypes], tmp_path, num_epochs=1, precision="bf16").train()
    assert set(seen) == {(torch.bfloat16, torch.float32)}


def test_an_object_is_updated_batch_by_batch_and_begins_anew_each_time(tmp_path):
    metric = Largest()
    trainer = make_trainer([metric, largest], tmp_path)
    trainer.train()
    for row in trainer.history:
        assert row["the_largest"] == pytest.approx(row["largest"])
    assert metric.begun == 3  # the look, and two epochs
    assert trainer.history[1]["largest"] < trainer.history[0]["largest"]  # the control


def test_metrics_of_torchmetrics_need_no_wrapper(tmp_path):
    torchmetrics = pytest.importorskip("torchmetrics")
    metrics = ["mae", "mse", torchmetrics.MeanAbsoluteError()]
    trainer = make_trainer([*metrics, torchmetrics.MeanSquaredError()], tmp_path)
    trainer.train()
    row = trainer.history[-1]
    assert row["MeanAbsoluteError"] == pytest.approx(row["mae"], rel=1e-6)
    assert row["MeanSquaredError"] == pytest.approx(row["mse"], rel=1e-6)
    assert row["mse"] == pytest.approx(row["val_loss"], rel=1e-6)


def test_batches_that_do_not_join_are_for_an_object_and_not_for_a_function():
    loader = [(torch.randn(2, n, 3), torch.randn(2, n, 2)) for n in (4, 6)]
    found = Evaluator(make_model(), metrics=[Largest(), "mae"]).evaluate(loader)
    assert found["the_largest"] > found["mae"]
    with pytest.raises(ConfigError, match=r"of \(2, 4, 2\) and \(2, 6, 2\) cannot be"):
        Evaluator(make_model(), metrics=[largest]).evaluate(loader)


class Weighted(dict):
    loss_weight = 0.0


@pytest.mark.parametrize(
    "metric",
    ["mae", "mse", largest, Largest()],
    ids=["mae", "mse", "function", "object"],
)
@pytest.mark.parametrize("loss", [[], ["loss"]], ids=["alone", "beside the loss"])
def test_a_batch_of_weight_0_is_left_out(metric, loss):
    right = {"x": torch.ones(2), "labels": torch.full((2,), 3.0)}
    padding = Weighted(x=torch.zeros(2), labels=torch.full((2,), 9.0))
    evaluator = Evaluator(Returns(), metrics=[metric, *loss])
    alone = evaluator.evaluate([right])
    assert evaluator.evaluate([padding, right]) == alone
    assert evaluator.evaluate([dict(padding), right]) != alone  # the control
    with pytest.raises(DataError, match="all have the weight 0"):
        evaluator.evaluate([padding])


@pytest.mark.parametrize("value", [None, True, "1.0", torch.zeros(2), {"a": 1.0}])
@pytest.mark.parametrize("kind", ["function", "object"])
def test_what_returns_no_number_costs_no_step(value, kind, tmp_path):
    def mine(outputs, targets):
        return value

    metric = mine
    if kind == "object":
        metric = Largest("mine")
        metric.compute = lambda: value
    trainer = make_trainer([metric], tmp_path)
    with pytest.raises(ConfigError, match=r"the metric 'mine' returned .*return a num"):
        trainer.train()
    assert trainer.step == 0


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor(2), torch.tensor(2.0).numpy()])
def test_a_number_of_any_library_is_delivered(value):
    def mine(outputs, targets):
        return value

    assert Evaluator(make_model(), metrics=[mine]).evaluate(batches(10)) == {"mine": 2}


def test_nan_is_delivered_as_it_is(tmp_path):
    def undefined(outputs, targets):
        return math.nan

    trainer = make_trainer([undefined], tmp_path)
    trainer.train()
    assert math.isnan(trainer.history[-1]["undefined"])


def step(outputs, targets):
    return 0


def mae(outputs, targets):
    return 1.0


CONSTRUCTED = [EvaluationCallback, partial(Evaluator, nn.Linear(3, 2))]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ([lambda o, t: 0], "lambda.* has no name to be delivered under"),
        ([partial(largest)], "no name .*`def name.*such as one that calls it"),
        ([nn.L1Loss()], "no name .*`def name"),
        ([Largest], r"the class Largest; pass an object of it, such as Largest\(\)"),
        (["mae", mae], "two named 'mae'"),
        ([Largest().measured, Largest().measured], "two named 'measured'"),
        ([largest, Largest("largest")], "two named 'largest'"),
        ([Largest("loss")], "of your own named 'loss', but so the run calls"),
        ([Largest("val_loss")], "of your own named 'val_loss'"),
        (["val_loss"], "has 'val_loss', .* list 'loss'"),
        ([math.sqrt], "the metric 'sqrt' takes .* called with"),
    ],
)
@pytest.mark.parametrize("make", CONSTRUCTED, ids=["callback", "evaluator"])
def test_what_cannot_be_measured_is_told_on_construction(make, metrics, told):
    with pytest.raises(ConfigError, match=told):
        make(metrics=metrics)


def test_a_name_of_a_column_is_told_on_construction():
    with pytest.raises(PluginError, match="'step'; use a text other than epoch, step"):
        EvaluationCallback(metrics=[step])


@pytest.mark.parametrize("make", CONSTRUCTED, ids=["callback", "evaluator"])
def test_what_is_listed_twice_is_one_metric(make):
    own = Largest()
    once = ["mae", largest, own, own.measured, "loss"]
    made = make(metrics=[*once, "mae", largest, own, own.measured])
    names = made.produces if make is EvaluationCallback else made.metrics
    assert len(names) == 5


@pytest.mark.parametrize("metrics", [["anls"], ["anls", largest]])
def test_a_name_may_be_that_of_a_task_until_the_run_is_known(metrics, tmp_path):
    trainer = make_trainer(metrics, tmp_path)
    with pytest.raises(ConfigError, match=r"'anls'; choose from: loss, .*, mae, mse"):
        trainer.train()
    assert trainer.step == 0


def test_what_a_step_function_delivers_is_no_name_for_another():
    def val_right(outputs, targets):
        return 0

    def loss(model, batch):
        error = mse_loss(model(batch[0]), batch[1])
        return {"loss": error, "right": error}

    metrics = ["loss", val_right]
    with pytest.raises(ConfigError, match=r"'val_right' is .* as 'right'; rename"):
        Evaluator(make_model(), metrics=metrics, step_fn=loss).evaluate(batches(10))


def test_the_plan_of_a_run_knows_the_names():
    callback = EvaluationCallback(metrics=["loss", "mae", largest, Largest()])
    assert callback.produces == ("val_loss", "mae", "largest", "the_largest")


@pytest.mark.parametrize("name", ["mae", "largest", "the_largest", "largest/clean"])
def test_monitors_watch_them(name, tmp_path):
    loaders = {"clean": batches(4, 6), "other": batches(10)}
    options = {"val_dataloader": loaders} if "/" in name else {}
    make = partial(make_trainer, ["mae", largest, Largest()], **options)
    checkpoints = ModelCheckpointCallback(tmp_path / "kept", monitor=name)
    stopping = EarlyStoppingCallback(monitor=name)
    trainer = make(tmp_path, [checkpoints, stopping])
    trainer.train()
    assert checkpoints.best_value == trainer.history[-1][name]
    misspelt = make(tmp_path, [EarlyStoppingCallback(monitor=f"{name}st")])
    with pytest.raises(MetricError, match=f"did you mean '{name}'"):
        misspelt.train()
    assert misspelt.step == 0


def test_a_resumed_run_measures_as_one_that_went_through(tmp_path):
    def make(folder, **options):
        rows = DataLoader(TensorDataset(X, Y), batch_size=4)
        kept = [ModelCheckpointCallback(folder, monitor="largest")]
        metrics = ["mae", largest, Largest()]
        return make_trainer(metrics, folder, kept, val_dataloader=rows, **options)

    straight = make(tmp_path / "one")
    straight.train()
    make(tmp_path / "two", num_epochs=1).train()
    resumed = make(tmp_path / "two")
    resumed.train(resume="auto")
    last, expected = resumed.history[-1], straight.history[-1]
    for name in ("mae", "largest", "the_largest"):
        assert last[name] == expected[name]
