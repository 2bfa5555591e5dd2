"""What Evaluator promises, one claim a case."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from trainbus_evaluation import Evaluator
from trainbus_evaluation.metrics import accuracy, macro_f1
from training import ConfigError, DataError


def random_classes(seed, count=97, classes=5):
    generator = torch.Generator().manual_seed(seed)
    both = torch.randint(classes, (2, count), generator=generator)
    return both[0], torch.where(both[1] < 2, both[0], both[1])  # right more often


def batches_of(inputs, targets, *sizes):
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_and_f1_equal_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    predicted, target = random_classes(seed)
    expected = sklearn.f1_score(target, predicted, average="macro")
    assert macro_f1(predicted, target) == pytest.approx(expected, abs=1e-12)
    expected = sklearn.accuracy_score(target, predicted)
    assert accuracy(predicted, target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_f1_equal_torchmetrics(seed):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    predicted, target = random_classes(seed)
    expected = functional.multiclass_f1_score(
        predicted, target, num_classes=5, average="macro"
    )
    assert macro_f1(predicted, target) == pytest.approx(float(expected), abs=1e-6)
    expected = functional.multiclass_accuracy(
        predicted, target, num_classes=5, average="micro"
    )
    assert accuracy(predicted, target) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("predicted", "target", "score"),
    [
        pytest.param([0, 1], [0, 1], 1.0, id="all right"),
        pytest.param([1, 0], [0, 1], 0.0, id="all wrong"),
        pytest.param([0, 0, 0, 0], [0, 0, 1, 1], 1 / 3, id="a class never predicted"),
        pytest.param([7, 7], [7, 9], 1 / 3, id="class numbers need not be dense"),
    ],
)
def test_macro_f1_by_hand(predicted, target, score):
    value = macro_f1(torch.tensor(predicted), torch.tensor(target))
    assert value == pytest.approx(score)


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 9)], ids=str)
def test_metrics_do_not_depend_on_how_rows_are_batched(sizes):
    torch.manual_seed(0)
    model, inputs = nn.Linear(3, 4), torch.randn(10, 3)
    targets = torch.randint(4, (10,))
    evaluator = Evaluator(model, "cpu", ["loss", "accuracy", "f1"])
    results = evaluator.evaluate(batches_of(inputs, targets, *sizes))
    logits = model(inputs).detach()
    assert results == pytest.approx(
        {
            "loss": cross_entropy(logits, targets).item(),
            "accuracy": accuracy(logits.argmax(-1), targets),
            "f1": macro_f1(logits.argmax(-1), targets),
        },
        rel=1e-6,
    )


class LabelMean(nn.Module):
    """Returns a mean over the labels that count, as language models do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 4)

    def forward(self, inputs, labels):
        logits = self.linear(inputs)
        return {"loss": cross_entropy(logits.transpose(1, 2), labels)}


def token_rows():
    torch.manual_seed(1)
    inputs, labels = torch.randn(10, 6, 3), torch.randint(4, (10, 6))
    for number, row in enumerate(labels):
        row[1 + number % 6 :] = -100
    return inputs, labels


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (7, 3)], ids=str)
def test_a_mean_over_labels_is_found_by_the_losses_of_two_parts(sizes):
    inputs, labels = token_rows()
    keys = {"inputs": inputs, "labels": labels}
    parts = zip(*(value.split(sizes) for value in keys.values()), strict=True)
    loader = [dict(zip(keys, part, strict=True)) for part in parts]
    model = LabelMean()
    whole = model(inputs, labels)["loss"].item()
    found = Evaluator(model).evaluate(loader)
    assert found["loss"] == pytest.approx(whole, rel=1e-6)
    if len(sizes) > 1:  # the control
        by_rows = Evaluator(model, loss_per="samples").evaluate(loader)
        assert by_rows["loss"] != pytest.approx(whole, rel=1e-3)


def test_what_no_unit_explains_counts_by_samples_and_says_so(caplog):
    torch.manual_seed(0)
    model, inputs = nn.Linear(3, 4), torch.randn(10, 3)
    loader = batches_of(inputs, torch.randn(10, 4), 5, 5)
    root = Evaluator(model, loss_fn=lambda a, b: (a - b).square().mean().sqrt())
    root.evaluate(loader)
    assert "the loss is the mean over samples: say with loss_per" in caplog.text


def test_no_weight_is_measured_where_no_loss_is_asked_for(caplog):
    model, inputs = nn.Linear(3, 4), torch.randn(10, 3)
    loader = batches_of(inputs, torch.randint(4, (10,)), 5, 5)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    Evaluator(model, metrics=["accuracy"]).evaluate(loader)
    assert len(calls) == 2


class Weighted(dict):
    """A batch whose mean loss is over ``loss_weight`` items."""

    def __init__(self, loss, loss_weight):
        super().__init__(value=torch.tensor(loss))
        self.loss_weight = loss_weight


class ReturnsLoss(nn.Module):
    """Returns the batch's value as its loss."""

    def forward(self, value):
        return {"loss": value}


@pytest.mark.parametrize(
    ("batches", "mean"),
    [
        pytest.param([(1.0, 3), (5.0, 1)], 2.0, id="batches count by their weight"),
        pytest.param([(1.0, 3), (float("nan"), 0)], 1.0, id="weight 0 does not count"),
    ],
)
def test_the_loss_is_a_mean_over_items(batches, mean):
    loader = [Weighted(*batch) for batch in batches]
    assert Evaluator(ReturnsLoss()).evaluate(loader) == {"loss": pytest.approx(mean)}


class Classifier(nn.Module):
    """Returns loss and logits as transformers' classifiers do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, inputs, labels=None):
        logits = self.linear(inputs)
        loss = None if labels is None else cross_entropy(logits, labels)
        return SimpleNamespace(loss=loss, logits=logits)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="the model's own loss"),
        pytest.param(
            {"loss_fn": lambda out, y: cross_entropy(out.logits, y)}, id="loss_fn"
        ),
        pytest.param({"step_fn": lambda m, b: m(**b).loss}, id="step_fn"),
        pytest.param(
            {"step_fn": lambda m, b: {"loss_sum": m(**b).loss * 5, "weight": 5.0}},
            id="step_fn with its own weight",
        ),
    ],
)
def test_a_mapping_with_labels_is_evaluated_by(options):
    torch.manual_seed(0)
    model, inputs, labels = (
        Classifier(),
        torch.randn(5, 3),
        torch.tensor([0, 1, 2, 3, 0]),
    )
    evaluator = Evaluator(model, metrics=["accuracy", "loss", "f1"], **options)
    results = evaluator.evaluate([{"inputs": inputs, "labels": labels}])
    expected = model(inputs, labels)
    assert list(results) == ["accuracy", "loss", "f1"]
    assert results["loss"] == pytest.approx(expected.loss.item())
    assert results["accuracy"] == accuracy(expected.logits.argmax(-1), labels)


def test_predictions_cost_no_second_forward():
    model = Classifier()
    calls = []
    model.register_forward_hook(lambda *args: calls.append(1))
    evaluator = Evaluator(
        model, metrics=["loss", "f1"], compute_loss=lambda b: (model(**b).loss, 2.0)
    )
    evaluator.evaluate([{"inputs": torch.zeros(2, 3), "labels": torch.tensor([0, 1])}])
    assert len(calls) == 1


@pytest.mark.parametrize(("metrics", "number"), [(["loss"], 0), (["loss", "f1"], 1)])
def test_a_model_is_hooked_once_an_evaluation_and_not_for_its_loss(metrics, number):
    model, hooks = Classifier(), []
    register = model.register_forward_hook
    model.register_forward_hook = lambda hook: hooks.append(hook) or register(hook)
    evaluator = Evaluator(
        model, metrics=metrics, compute_loss=lambda b: (model(**b).loss, 2.0)
    )
    batch = {"inputs": torch.zeros(2, 3), "labels": torch.tensor([0, 1])}
    evaluator.evaluate([batch] * 3)
    assert len(hooks) == number
    assert not model._forward_hooks


class Tokens(nn.Module):
    """Returns given logits (B, T, C); ``generates`` makes it a decoder-only model."""

    def __init__(self, logits, generates):
        super().__init__()
        self.logits = logits
        self.config = SimpleNamespace(is_encoder_decoder=False)
        if generates:
            self.can_generate = lambda: True

    def forward(self, labels):
        return {"logits": self.logits, "loss": self.logits.sum() * 0}


@pytest.mark.parametrize(
    ("labels", "generates", "score"),
    [
        pytest.param([[1, 2, 0]], False, 1.0, id="token by token"),
        pytest.param([[1, -100, 1]], False, 0.5, id="-100 is left out"),
        pytest.param([[9, 1, 2]], True, 1.0, id="shifted for a decoder-only model"),
    ],
)
def test_token_labels(labels, generates, score):
    logits = nn.functional.one_hot(torch.tensor([[1, 2, 0]]), 10).float()
    evaluator = Evaluator(Tokens(logits, generates), metrics=["accuracy"])
    result = evaluator.evaluate([{"labels": torch.tensor(labels)}])
    assert result == {"accuracy": score}


class Answers(nn.Module):
    """Generates given rows of ids, as BLIP does: start 8, end 9, padding 0."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.tensor(rows)
        text = SimpleNamespace(sep_token_id=9, eos_token_id=2, pad_token_id=0)
        self.config = SimpleNamespace(text_config=text)

    def forward(self, question, labels):
        return SimpleNamespace(loss=question.float().mean())

    def generate(self, question, max_new_tokens, num_beams, do_sample):
        assert not do_sample
        return self.rows[question, : 1 + max_new_tokens]


def test_a_model_without_logits_answers_and_its_whole_answer_is_the_class():
    model = Answers([8, 5, 9, 0], [8, 5, 6, 9], [8, 7, 9, 0])
    labels = torch.tensor([[8, 5, 9, -100], [8, 5, 9, -100], [8, 7, 9, -100]])
    batch = {"question": torch.tensor([0, 1, 2]), "labels": labels}
    evaluator = Evaluator(model, metrics=["loss", "accuracy", "f1"])
    results = evaluator.evaluate([batch])
    # classes: (5) is 2/3, (5, 6) was only predicted: 0, (7) is 1
    assert results["accuracy"] == pytest.approx(2 / 3)
    assert results["f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert results["loss"] == 1.0


def test_every_module_gets_its_own_mode_back_also_after_an_error():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4))
    model.train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    batch = (torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))
    statistics = model[2].running_mean.clone()
    evaluator = Evaluator(model)
    evaluator.evaluate([batch])
    with pytest.raises(ConfigError):
        evaluator.evaluate([torch.randn(4, 3)])
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[2].running_mean, statistics)


class Caching(nn.Module):
    """Keeps a tensor of its first forward pass and uses it ever after."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.cache = None

    def forward(self, x):
        self.cache = x * 2 if self.cache is None else self.cache
        return self.cache * self.weight


def test_a_tensor_cached_while_evaluating_can_be_trained_with():
    model = Caching()
    batch = (torch.ones(2, 1), torch.ones(2, 1))
    Evaluator(model, loss_fn=mse_loss).evaluate([batch])
    model(batch[0]).sum().backward()
    assert model.weight.grad is not None


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["acuracy"], "did you mean 'accuracy'"),
        ([], "pass a list of: loss, accuracy, f1"),
        ("loss", "pass a list of"),
    ],
)
def test_unknown_metrics_are_refused_on_construction(metrics, message):
    with pytest.raises(ConfigError, match=message):
        Evaluator(nn.Linear(1, 1), metrics=metrics)


@pytest.mark.parametrize(
    ("batch", "metrics", "message"),
    [
        pytest.param(
            torch.zeros(2, 3), ["loss"], "batches with 'labels'", id="no targets"
        ),
        pytest.param(
            (torch.zeros(2, 3), torch.zeros(2, 4)), ["loss"], "loss_fn", id="no classes"
        ),
        pytest.param(
            (torch.zeros(2, 3), torch.zeros(3).long()),
            ["f1"],
            r"logits are \(2, 4\) and the labels \(3,\)",
            id="shapes that do not fit",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch, metrics, message):
    loss_fn = (lambda out, y: out.sum()) if metrics == ["f1"] else None
    with pytest.raises(ConfigError, match=message):
        Evaluator(nn.Linear(3, 4), metrics=metrics, loss_fn=loss_fn).evaluate([batch])


def test_an_empty_loader_is_an_error():
    with pytest.raises(DataError, match="gave no batch"):
        Evaluator(nn.Linear(3, 4)).evaluate([])


def test_a_device_that_is_not_there_is_refused_on_construction():
    with pytest.raises(ConfigError, match="cuda:99"):
        Evaluator(nn.Linear(3, 4), device="cuda:99")


def test_what_torch_says_of_its_mode_that_forbids_waits_fails_no_test():
    warnings.warn(
        "Synchronization debug mode is a prototype feature and does not yet detect all "
        "synchronizing operations",
        stacklevel=1,
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_model_is_moved_and_nothing_is_read_before_the_end():
    model = nn.Linear(3, 4)
    evaluator = Evaluator(model, "cuda", ["loss"])
    batch = (torch.zeros(2, 3).pin_memory(), torch.zeros(2).long().pin_memory())

    class Loader(list):
        def __iter__(self):
            yield from super().__iter__()
            torch.cuda.set_sync_debug_mode("default")

    evaluator.evaluate([batch])
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluator.evaluate(Loader([batch] * 3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert next(model.parameters()).is_cuda
