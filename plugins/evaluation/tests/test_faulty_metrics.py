"""Metrics that do what they should not, and what they are told of it."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import ConfigError, Trainer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(9, 3, generator=GENERATOR)
Y = torch.randn(9, 2, generator=GENERATOR)
CLASSES = torch.arange(9) % 2


def batches(targets=Y):
    return list(zip(X.split(4), targets.split(4), strict=True))


def make_model(outputs=2):
    torch.manual_seed(0)
    return nn.Linear(3, outputs)


def largest(outputs, targets):
    """The largest error of all."""
    return (outputs - targets).abs().max()


class Largest:
    """The same, updated batch by batch."""

    def __init__(self, name="the_largest"):
        self.name = name

    def reset(self):
        self.value = 0.0

    def update(self, outputs, targets):
        self.value = max(self.value, largest(outputs, targets).item())

    def compute(self):
        return self.value


class Emptied(Largest):
    """Leaves nothing of what it is given, as a view of numpy too."""

    def update(self, outputs, targets):
        outputs.zero_()
        targets.numpy()[:] = 0


def emptied(outputs, targets):
    Emptied("other").update(outputs, targets)
    return 0


@pytest.mark.parametrize("before", [emptied, Emptied("before")], ids=["def", "object"])
def test_what_works_in_place_changes_nothing_for_other_metrics(before):
    measured = Evaluator(make_model(), metrics=[before, Largest(), largest, "mae"])
    clean = Evaluator(make_model(), metrics=[Largest(), largest, "mae"])
    found, loader = measured.evaluate(batches()), batches()
    for name, value in clean.evaluate(loader).items():
        assert found[name] == value > 0


@pytest.mark.parametrize("kind", ["def", "reset", "update", "compute"])
def test_what_fails_in_a_metric_tells_its_name(kind):
    def mine(outputs, targets):
        raise KeyError("a key")

    metric = mine
    if kind != "def":
        metric = Largest("mine")
        setattr(metric, kind, mine if kind == "update" else partial(mine, X, Y))
    with pytest.raises(KeyError, match="a key") as told:
        Evaluator(make_model(), metrics=[largest, metric]).evaluate(batches())
    assert told.value.__notes__ == ["in the metric 'mine' of your own"]


def mine(y_true, y_pred):
    return 0


class Turned(Largest):
    def update(self, target, preds):
        super().update(preds, target)


@pytest.mark.parametrize("metric", [mine, Turned()], ids=["def", "object"])
@pytest.mark.parametrize(
    "make",
    [EvaluationCallback, partial(Evaluator, nn.Linear(3, 2))],
    ids=["callback", "evaluator"],
)
def test_what_takes_the_targets_first_is_refused_with_the_way_out(make, metric):
    way = "let its update take"
    if metric is mine:
        way = r"`def turned\(.*: return mine\(targets, outputs\)`"
    told = rf"first, but is called .*{way}"
    with pytest.raises(ConfigError, match=told):
        make(metrics=[metric])


def test_functions_of_scikit_learn_are_refused_and_right_when_turned():
    r2_score = pytest.importorskip("sklearn.metrics").r2_score
    model = make_model()
    with pytest.raises(ConfigError, match="'r2_score' takes 'y_true' first"):
        Evaluator(model, metrics=[r2_score])

    def r2(outputs, targets):
        return r2_score(targets, outputs)

    found = Evaluator(model, metrics=[r2]).evaluate(batches())
    outputs = model(X).detach()
    assert found["r2"] == pytest.approx(r2_score(Y, outputs), rel=1e-5)
    assert found["r2"] != pytest.approx(r2_score(outputs, Y), rel=1e-2)  # the control


@pytest.mark.parametrize("targets", [CLASSES, CLASSES.bool()], ids=["int64", "bool"])
def test_a_metric_alone_needs_no_loss_of_its_targets(targets):
    def right(outputs, targets):
        return ((outputs[:, 0] > 0) == targets).float().mean()

    model = make_model(1)
    found = Evaluator(model, metrics=[right]).evaluate(batches(targets))
    assert found == {"right": right(model(X), targets).item()}
    with pytest.raises(ConfigError, match=r"mae need .* of fractions, but the outputs"):
        Evaluator(model, metrics=["mae"]).evaluate(batches(targets))


def rows(outputs, targets):
    return len(outputs)


def test_beside_a_metric_a_loss_that_is_asked_for_is_measured():
    model = make_model()
    found = Evaluator(model, metrics=["loss", rows]).evaluate(batches(CLASSES))
    assert found["loss"] == pytest.approx(cross_entropy(model(X), CLASSES).item())


KINDS = ["mae", "def", "object"]


class Squeezed(nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.body, self.returns = make_model(1), returns

    def forward(self, x):
        return self.returns(self.body(x).squeeze())


@pytest.mark.parametrize("metric", ["mae", largest, Largest()], ids=KINDS)
@pytest.mark.parametrize(
    "returns", [lambda x: x, lambda x: {"logits": x}], ids=["bare", "mapping"]
)
def test_a_batch_of_one_row_that_a_model_squeezes_is_told_so(metric, returns):
    evaluator = Evaluator(Squeezed(returns), metrics=[metric])
    with pytest.raises(ConfigError, match=r"shape \(\), .* of \(1,\); .*squeeze\(-1\)"):
        evaluator.evaluate(batches(Y[:, 0]))


@pytest.mark.parametrize(
    "metric", ["mae", largest, "accuracy"], ids=["mae", "def", "accuracy"]
)
def test_a_step_that_calls_a_part_of_the_model_is_told_to_call_the_model(
    metric, tmp_path
):
    def step(model, batch):
        return mse_loss(model[0](batch[0]), batch[1])

    model = nn.Sequential(make_model())
    trainer = Trainer(
        model,
        batches(),
        batches(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        save_dir=tmp_path,
        callbacks=[EvaluationCallback(metrics=[metric])],
    )
    with pytest.raises(ConfigError, match=r"let step_fn call the model itself"):
        trainer.train()
    assert trainer.step == 0


def test_of_a_step_that_calls_the_model_twice_the_last_outputs_are_compared():
    def step(model, batch):
        model(batch[0] * 100)
        return mse_loss(model(batch[0]), batch[1])

    model = make_model()
    found = Evaluator(model, metrics=["mae", largest], step_fn=step).evaluate(batches())
    assert found == Evaluator(model, metrics=["mae", largest]).evaluate(batches())
