"""Where the classes of logits are, for every usual layout; never a guess."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainbus_evaluation import Evaluator
from training import ConfigError

B, C = 4, 6


class Knows(nn.Module):
    """Returns logits that are right but for the first item, classes in ``place``."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        logits = nn.functional.one_hot(x.long(), C).float()
        wrong = logits.view(-1, C)[0]
        wrong.copy_(wrong.roll(1))
        return logits.movedim(-1, self.place)


def constant(outputs, targets):
    """A loss that knows of no classes."""
    return outputs.sum() * 0


def labels_of(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, C, shape, generator=generator)


def score(place, *shapes, loss_fn=constant, **options):
    labels = [labels_of(*shape) for shape in shapes]
    evaluator = Evaluator(
        Knows(place), metrics=["accuracy", "f1"], loss_fn=loss_fn, **options
    )
    return evaluator.evaluate([(each.float(), each) for each in labels])["accuracy"]


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        pytest.param((B,), 1, id="(B, C)"),
        pytest.param((B, 5), 1, id="(B, C, T)"),
        pytest.param((B, 5), -1, id="(B, T, C)"),
        pytest.param((B, 5, 7), 1, id="(B, C, H, W)"),
        pytest.param((B, 5, 7), -1, id="(B, H, W, C)"),
        pytest.param((B, C, 7), 1, id="(B, C, H, W) with H = C"),
        pytest.param((B, 7, C), -1, id="(B, H, W, C) with W = C"),
    ],
)
def test_the_shape_of_the_labels_tells_where_the_classes_are(shape, place):
    assert score(place, shape) == pytest.approx(1 - 1 / labels_of(*shape).numel())


SQUARE = [
    pytest.param((B, C), id="(B, C, T) or (B, T, C) with T = C"),
    pytest.param((B, C, C), id="(B, C, H, W) with H = W = C"),
]


@pytest.mark.parametrize("shape", SQUARE)
def test_where_two_places_fit_nothing_is_guessed(shape):
    with pytest.raises(ConfigError, match="class_dim=1 or class_dim=-1"):
        score(1, shape)


@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("place", [1, -1])
def test_there_class_dim_decides(shape, place):
    count = labels_of(*shape).numel()
    assert score(place, shape, class_dim=place) == pytest.approx(1 - 1 / count)
    assert score(place, shape, class_dim=-place) < 0.6, "the wrong one is plainly wrong"


@pytest.mark.parametrize("order", [[(B, C), (B, 5)], [(B, 5), (B, C)]], ids=str)
@pytest.mark.parametrize("place", [1, -1])
def test_or_another_batch_decides_for_all(order, place):
    count = B * (C + 5)
    assert score(place, *order) == pytest.approx(1 - 2 / count)


@pytest.mark.parametrize(
    "loss_fn",
    [
        pytest.param(None, id="the evaluator's own"),
        pytest.param(nn.functional.cross_entropy, id="the function"),
        pytest.param(nn.CrossEntropyLoss(), id="the module"),
    ],
)
def test_or_the_loss_does_whose_classes_are_known(loss_fn):
    assert score(1, (B, C), loss_fn=loss_fn) == pytest.approx(1 - 1 / (B * C))


class Echoes(nn.Module):
    """Returns logits for what it is given, classes in ``place``; all losses differ."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.scale = nn.Parameter(torch.linspace(1.5, 2.5, C))

    def forward(self, x):
        return (nn.functional.one_hot(x, C) * self.scale).movedim(-1, self.place)


def square(place, shifts, **options):
    """Measure by a loss of one's own where T = C; return (accuracy, the right one)."""
    smoothing = options.pop("label_smoothing", 0.0)

    def own_loss(outputs, labels):
        outputs = outputs.movedim(place, 1)
        if shifts:
            outputs, labels = outputs[..., :-1], labels[:, 1:]
        return nn.functional.cross_entropy(outputs, labels, label_smoothing=smoothing)

    tokens = labels_of(B, C)
    own = {"metrics": ["loss", "accuracy"], "loss_fn": own_loss, **options}
    found = Evaluator(Echoes(place), **own).evaluate([(tokens, tokens)])["accuracy"]
    return found, (tokens[:, :-1] == tokens[:, 1:]).double().mean() if shifts else 1.0


@pytest.mark.parametrize("options", [{}, {"shift_labels": True}], ids=str)
@pytest.mark.parametrize("place", [1, -1])
def test_or_the_value_of_the_loss_does_of_which_place_it_is(place, options):
    found, right = square(place, True, **options)
    assert found == pytest.approx(float(right))
    found, right = square(place, False)
    assert found == right


@pytest.mark.parametrize("options", [{}, {"loss_per": "shifted_labels"}], ids=str)
@pytest.mark.parametrize("place", [1, -1])
def test_a_shift_tells_no_place_of_classes(place, options):
    with pytest.raises(ConfigError, match="class_dim=1 or class_dim=-1"):
        square(place, True, label_smoothing=0.1, **options)


def test_a_decoder_predicts_tokens_one_by_one_also_where_two_places_fit():
    model = Knows(-1)
    model.can_generate = lambda: True
    tokens = labels_of(1, C + 1)
    evaluator = Evaluator(model, metrics=["accuracy"], loss_fn=constant)
    shifted = torch.cat([tokens[:, 1:], tokens[:, :1]], 1).float()
    result = evaluator.evaluate([(shifted, tokens)])
    assert result["accuracy"] == pytest.approx(1 - 1 / C)


@pytest.mark.parametrize(
    ("place", "shapes", "options", "told"),
    [
        pytest.param(
            1, [(B, 5)], {"class_dim": -1}, "classes in dimension -1", id="does not fit"
        ),
        pytest.param(1, [(B,)], {"class_dim": 2}, "in dimension 2", id="not there"),
        pytest.param(1, [(B,)], {"class_dim": 0}, "which is the batch", id="the batch"),
    ],
)
def test_a_class_dim_that_cannot_be_is_refused(place, shapes, options, told):
    with pytest.raises(ConfigError, match=told):
        score(place, *shapes, **options)


class OneLogit(nn.Module):
    """A binary classifier with one logit a sample."""

    def forward(self, x):
        return x[:, None]


def test_one_logit_has_no_highest_class():
    batch = (torch.randn(B), torch.tensor([0, 1, 1, 0]))
    evaluator = Evaluator(OneLogit(), metrics=["accuracy"], loss_fn=constant)
    with pytest.raises(ConfigError, match=r"a logit for each class.*\(4, 1\)"):
        evaluator.evaluate([batch])


def test_batches_that_disagree_are_refused():
    class Turns(Knows):
        def forward(self, x):
            self.place = -self.place
            return super().forward(x)

    labels = labels_of(B, 5)
    evaluator = Evaluator(Turns(1), metrics=["f1"], loss_fn=constant)
    with pytest.raises(ConfigError, match="with the classes in dimension -1"):
        evaluator.evaluate([(labels.float(), labels)] * 2)


class Argmaxes(TorchDispatchMode):
    """Counts how often a highest logit is looked for."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten.argmax.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("shape", "number"), [((B,), 2), ((B, 5), 2), ((B, C), 3)])
def test_logits_are_searched_once_a_batch_unless_two_places_fit_the_first(
    shape, number
):
    with Argmaxes() as seen:
        score(1, shape, (B, 5) if shape == (B, C) else shape)
    assert seen.number == number


@pytest.mark.parametrize("where", [0, C - 1, slice(None)], ids=str)
@pytest.mark.parametrize(
    ("shape", "place"), [((B,), 1), ((B, 5), 1), ((B, 5), -1), ((B, 5, 7), 1)]
)
def test_what_has_a_nan_among_its_logits_is_right_for_no_class(
    shape, place, where, caplog
):
    class HasNaN(Knows):
        def forward(self, x):
            logits = super().forward(x).movedim(self.place, -1)
            logits[-1:].fill_(0)[..., where] = torch.nan
            return logits.movedim(-1, self.place)

    labels = torch.zeros(shape, dtype=torch.int64)
    labels[-1] = C - 1 if where == C - 1 else 0  # what torch calls the highest
    if len(shape) > 1:
        labels.view(-1)[-1] = -100
    counted = labels != -100
    evaluator = Evaluator(HasNaN(place), metrics=["accuracy", "f1"], loss_fn=constant)
    batch = labels.clamp(min=0).float(), labels
    found = [evaluator.evaluate([batch]) for _ in range(2)]
    right = counted[:-1].sum() - 1
    assert found[0]["accuracy"] == pytest.approx(float(right / counted.sum()))
    assert found[0]["f1"] < 0.5
    assert found[0] == found[1]
    (told,) = caplog.messages
    number = counted[-1].sum()
    assert f"the logits of {number} label{'s' if number > 1 else ''}," in told


def test_a_nan_is_a_miss_of_the_class_that_is_true_and_no_class_of_its_own():
    labels = torch.arange(100) % 2
    logits = nn.functional.one_hot(labels).float()
    logits[0, 1] = torch.nan
    evaluator = Evaluator(nn.Identity(), metrics=["f1"], loss_fn=constant)
    f1 = evaluator.evaluate([(logits, labels)])["f1"]
    assert f1 == pytest.approx((2 * 49 / (49 + 50) + 1) / 2)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.int64], ids=str
)
@pytest.mark.parametrize("shape", [(B,), (B, 5)], ids=str)
def test_labels_may_be_whole_numbers_of_any_width(dtype, shape):
    labels = labels_of(*shape)

    def measure(labels):
        evaluator = Evaluator(Knows(1), metrics=["loss", "accuracy", "f1"])
        return evaluator.evaluate([(labels.float(), labels)] * 2)

    assert measure(labels.to(dtype)) == measure(labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16], ids=str)
@pytest.mark.parametrize("rows", [[156, 156, 3, 3], [156] * 4], ids=str)
def test_a_class_that_bytes_would_take_for_what_is_ignored_counts(dtype, rows):
    """In a byte -100 is 156."""
    logits = torch.zeros(4, 200)
    logits[:, 156] = 1
    evaluator = Evaluator(nn.Identity(), metrics=["accuracy", "loss"])
    found = [
        evaluator.evaluate([(logits, torch.tensor(rows, dtype=each))])
        for each in (torch.int64, dtype)
    ]
    assert found[0]["accuracy"] == rows.count(156) / 4
    assert found[0] == found[1]
