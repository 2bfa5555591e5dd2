"""Logit t is compared with the label that the loss compares it with."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import ConfigError, Trainer

C = 5
TOKENS = torch.tensor([[1, 2, 2, 3], [4, 4, 0, 1]])
#: Of a model that says what it was given: 2 follows 2, 4 follows 4, of 6 tokens. F1 of
#: 2 is 2 * 1 / (2 + 2), of 4 it is 2 * 1 / (2 + 1), and that of 0, 1 and 3 is 0.
NEXT = {"accuracy": pytest.approx(1 / 3), "f1": pytest.approx((1 / 2 + 2 / 3) / 5)}
SAME = {"accuracy": 1.0, "f1": 1.0}
smoothed = partial(cross_entropy, label_smoothing=0.1)


def shifted(out, y, loss=cross_entropy):
    return loss(out[:, :-1].flatten(0, 1), y[:, 1:].flatten())


def shifted_with_classes_in_front(out, y):
    return cross_entropy(out[:, :, :-1], y[:, 1:])


def shifted_in_rows(out, y):
    found = cross_entropy(out[:, :-1].movedim(-1, 1), y[:, 1:], reduction="none")
    return (found.sum(1) / (y[:, 1:] != -100).sum(1)).mean()


def plain(out, y, loss=cross_entropy):
    return loss(out.flatten(0, 1), y.flatten())


def plain_but_the_first(out, y):
    return cross_entropy(out[:, 1:].flatten(0, 1), y[:, 1:].flatten())


class Copies(nn.Module):
    """Returns logits (B, T, C), or with the classes in ``place``, of what it is given.

    With labels it returns a loss, too; ``generates`` makes it a decoder.
    """

    def __init__(self, place=-1, loss=None, generates=False):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(1.5, 2.5, C))  # losses differ
        self.place, self.loss = place, loss
        self.config = SimpleNamespace(is_encoder_decoder=False, vocab_size=C)
        if generates:
            self.can_generate = lambda: True

    def forward(self, tokens, labels=None):
        logits = (one_hot(tokens, C) * self.scale).movedim(-1, self.place)
        if labels is None:
            return logits
        return {"loss": self.loss(logits, labels), "logits": logits}


class Wraps(nn.Module):
    """Has a decoder inside; the loss, if any, is made from its logits by ``loss``."""

    def __init__(self, inner, loss=None, head=None):
        super().__init__()
        self.inner, self.loss = inner, loss
        self.head = nn.Identity() if head is None else head

    def forward(self, tokens, labels=None):
        logits = self.head(self.inner(tokens))
        if labels is None:
            return logits
        return {"loss": self.loss(logits, labels), "logits": logits}


def alone(model, batches, **options):
    metrics = options.pop("metrics", ["accuracy", "f1"])
    return Evaluator(model, metrics=metrics, **options).evaluate(batches)


def in_a_run(model, batches, shift_labels=None, **options):
    trainer = Trainer(
        model,
        batches,
        val_dataloader=batches,
        optimizer=SGD(model.parameters(), lr=1e-9),
        callbacks=[
            EvaluationCallback(metrics=["accuracy", "f1"], shift_labels=shift_labels)
        ],
        plugins=["no:run_record", "no:progress"],
        device="cpu",
        **options,
    )
    trainer.train()
    return {name: trainer.history[-1][name] for name in ("accuracy", "f1")}


PAIR, MAPPING = (TOKENS, TOKENS), {"tokens": TOKENS, "labels": TOKENS}
#: Rows of which 4 and 3 tokens count: what a loss is a mean over is measured by these.
RAGGED = (TOKENS, torch.where(torch.arange(4) < torch.tensor([[4], [3]]), TOKENS, -100))


@pytest.mark.parametrize("measured", [alone, in_a_run])
@pytest.mark.parametrize(
    ("model", "batch", "options", "expected"),
    [
        pytest.param(Copies, PAIR, {"loss_fn": shifted}, NEXT, id="a shifting loss"),
        pytest.param(
            partial(Copies, 1),
            PAIR,
            {"loss_fn": shifted_with_classes_in_front},
            NEXT,
            id="with the classes in dimension 1",
        ),
        pytest.param(
            Copies,
            PAIR,
            {"step_fn": lambda m, b: shifted(m(b[0]), b[1])},
            NEXT,
            id="a step",
        ),
        pytest.param(
            partial(Copies, loss=shifted), MAPPING, {}, NEXT, id="a model's own loss"
        ),
        pytest.param(
            lambda: Wraps(Copies(generates=True), shifted),
            MAPPING,
            {},
            NEXT,
            id="a wrapped decoder's",
        ),
        pytest.param(Copies, PAIR, {"loss_fn": plain}, SAME, id="one that does not"),
        pytest.param(
            partial(Copies, generates=True),
            PAIR,
            {"loss_fn": plain},
            SAME,
            id="of a decoder whose labels are shifted before",
        ),
        pytest.param(
            partial(Copies, 1, generates=True),
            PAIR,
            {"loss_fn": nn.CrossEntropyLoss()},
            SAME,
            id="torch's own",
        ),
        pytest.param(
            Copies,
            PAIR,
            {"loss_fn": plain_but_the_first},
            SAME,
            id="one that leaves out the first",
        ),
    ],
)
def test_labels_are_shifted_where_the_loss_shifts_them(
    model, batch, options, expected, measured
):
    assert measured(model(), [batch], **options) == expected


@pytest.mark.parametrize(
    ("loss", "generates", "score"),
    [
        pytest.param(shifted, False, 2 / 5, id="after the shift"),  # of 3 + 2 tokens
        pytest.param(plain, True, 1.0, id="of labels"),
    ],
)
def test_else_what_the_loss_is_a_mean_over_tells(loss, generates, score):
    model = Copies(generates=generates)
    options = {"loss_fn": partial(loss, loss=smoothed)}
    batches = [RAGGED] * 3  # as many are looked at
    assert in_a_run(model, batches, **options)["accuracy"] == pytest.approx(score)
    found = alone(model, batches, metrics=["loss", "accuracy"], **options)
    assert found["accuracy"] == pytest.approx(score)
    # Only where the loss is asked for, too, is its unit measured.
    found = alone(model, batches, metrics=["accuracy"], **options)
    assert found["accuracy"] == pytest.approx(2 / 5 if generates else 1.0)


summed = partial(cross_entropy, reduction="sum")


@pytest.mark.parametrize("measured", [alone, in_a_run])
@pytest.mark.parametrize(
    ("loss_fn", "score"),
    [
        pytest.param(partial(shifted, loss=summed), 2 / 5, id="a sum"),
        pytest.param(
            lambda out, y: shifted(out, y, summed) / len(y),
            2 / 5,
            id="that of a sample",
        ),
        pytest.param(shifted_in_rows, 2 / 5, id="a mean of rows' means"),
        pytest.param(partial(plain, loss=summed), 1.0, id="a sum that is not shifted"),
    ],
)
def test_a_loss_that_is_no_mean_over_labels_tells_too(loss_fn, score, measured):
    found = measured(Copies(), [RAGGED], loss_fn=loss_fn)
    assert found["accuracy"] == pytest.approx(score)


def test_a_loss_of_no_label_tells_nothing():
    one_each = (TOKENS[:, :1], TOKENS[:, :1])
    found = alone(Copies(), [one_each], loss_fn=lambda out, y: out.sum() * 0)
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("unit", "score"),
    [
        pytest.param("shifted_labels", 1 / 3, id="it is said"),
        pytest.param("labels", 1.0, id="labels say only what a batch weighs"),
    ],
)
def test_or_the_unit_that_is_said(unit, score):
    options = {"loss_fn": partial(shifted, loss=smoothed), "loss_per": unit}
    found = alone(Copies(), [PAIR], **options)
    assert found["accuracy"] == pytest.approx(score)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(lambda s: Copies(loss=s, generates=True), NEXT, id="a decoder"),
        pytest.param(
            lambda s: Wraps(Copies(generates=True), s), NEXT, id="a wrapped one"
        ),
        pytest.param(
            lambda s: Wraps(Copies(generates=True), s, nn.Linear(C, C + 1)),
            None,
            id="not one under a head of its own",
        ),
        pytest.param(lambda s: Copies(loss=s), SAME, id="not any other model"),
    ],
)
def test_where_the_loss_tells_nothing_the_model_does(model, expected):
    made = model(lambda out, y: shifted(out, y, smoothed))
    found = alone(made, [MAPPING])
    if expected is None:  # the head's logits, token by token
        predicted = made(TOKENS).argmax(-1)
        assert found["accuracy"] == (predicted == TOKENS).double().mean()
    else:
        assert found == expected


@pytest.mark.parametrize("measured", [alone, in_a_run])
@pytest.mark.parametrize(("shifts", "expected"), [(True, NEXT), (False, SAME)])
@pytest.mark.parametrize("loss", [shifted, plain])
def test_what_the_user_says_comes_first(loss, shifts, expected, measured):
    found = measured(Copies(), [PAIR], loss_fn=loss, shift_labels=shifts)
    assert found == expected


def test_a_wrapped_language_model_is_measured_as_by_itself():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_embd": 16, "n_layer": 1, "n_head": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=30, **sizes, **ends)
    )

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, labels):
            return self.model(input_ids=input_ids, labels=labels)

    ids = torch.randint(0, 20, (8, 30))
    batch = {"input_ids": ids, "labels": ids}
    predicted = model.eval()(ids).logits.argmax(-1)
    right = (predicted[:, :-1] == ids[:, 1:]).double().mean()
    plainly = (predicted == ids).double().mean()
    assert abs(right - plainly) > 0.5, "the control"
    assert alone(Wrapped(), [batch], metrics=["accuracy"]) == {"accuracy": right}
    assert alone(model, [batch], metrics=["accuracy"]) == {"accuracy": right}


def test_labels_beyond_the_classes_do_not_hinder_what_the_loss_tells():
    labels = torch.where(RAGGED[1] == -100, 255, TOKENS)

    def leaves_out_255(out, y):
        return shifted(out, y, partial(cross_entropy, ignore_index=255))

    found = alone(Copies(), [(TOKENS, labels)], loss_fn=leaves_out_255)
    assert found["accuracy"] == pytest.approx(2 / 6), "a function ignores -100 alone"


def test_a_shift_of_one_label_a_row_is_refused():
    model, batch = nn.Linear(3, 4), (torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match=r"shift_labels is True, .* are \(2,\)"):
        Evaluator(model, metrics=["accuracy"], shift_labels=True).evaluate([batch])


@pytest.mark.parametrize("option", [{"shift_labels": False}, {"class_dim": 1}])
def test_beside_an_evaluator_they_are_set_on_it(option):
    with pytest.raises(ConfigError, match=f"evaluation.{next(iter(option))} is given"):
        EvaluationCallback(Evaluator(nn.Linear(1, 1)), **option)
