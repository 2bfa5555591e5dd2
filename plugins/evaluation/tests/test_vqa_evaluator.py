"""What VQAEvaluator promises, with a model and a tokenizer of ten lines each."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainbus_evaluation import VQAEvaluator
from training import ConfigError, DataError

WORDS = ["[PAD]", "[DEC]", "[SEP]", "[UNK]", "yes", "no", "t", "-", "shirt", "2"]
PAD, DEC, SEP, UNK, YES, NO, T, DASH, SHIRT, TWO = range(10)


class Tokenizer:
    """Splits at marks as word pieces do: "t-shirt" decodes to "t - shirt"."""

    unk_token_id = UNK

    def __call__(self, text):
        words = text.lower().replace("-", " - ").split()
        ids = [WORDS.index(word) if word in WORDS else UNK for word in words]
        return {"input_ids": [DEC, *ids, SEP]}

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(WORDS[i] for i in map(int, row) if i > UNK) for row in rows]


class Model(nn.Module):
    """Gives question ``i`` the answer ``answers[i]``; its loss is the batch's mean."""

    def __init__(self, *answers):
        super().__init__()
        rows = [[DEC, *ids, SEP] for ids in answers]
        width = max(map(len, rows))
        self.ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
        self.calls = []

    def forward(self, question, labels):
        assert not self.training
        assert not torch.is_grad_enabled()
        return SimpleNamespace(loss=question.float().mean())

    def generate(self, question, **options):
        self.calls.append(options)
        return self.ids[question]


class Batch(dict):
    """A mapping with the rows that it was made from."""

    def __init__(self, question, labels, rows, loss_weight):
        super().__init__(question=question, labels=labels)
        self.rows = rows
        self.loss_weight = loss_weight


def batches_of(rows, size=2):
    """Return batches of ``size`` rows; the labels are not looked at."""
    batches = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        question = torch.arange(start, start + len(part))
        labels = torch.full((len(part), 2), SEP)
        batches.append(Batch(question, labels, part, len(part)))
    return batches


def row(answer, kind=None, answers=None):
    return {"question": "?", "answer": answer, "kind": kind, "answers": answers}


def evaluate(answers, rows, **options):
    evaluator = VQAEvaluator(Model(*answers), SimpleNamespace(tokenizer=Tokenizer()))
    return evaluator.evaluate(batches_of(rows), **options)


@pytest.mark.parametrize(
    ("ids", "answer", "exact", "accuracy"),
    [
        pytest.param([YES], "yes", 1.0, 1.0, id="right"),
        pytest.param([NO], "yes", 0.0, 0.0, id="wrong"),
        pytest.param([YES], "Yes", 1.0, 1.0, id="the tokenizer's case is no error"),
        pytest.param([T, DASH, SHIRT], "t-shirt", 1.0, 1.0, id="nor are its blanks"),
        pytest.param([TWO], "two", 0.0, 1.0, id="accuracy takes 2 for two"),
        pytest.param(
            [], "zebra", 0.0, 0.0, id="an unknown word is not matched by none"
        ),
    ],
)
def test_a_single_answer_scores(ids, answer, exact, accuracy):
    results = evaluate([ids], [row(answer)])
    assert (results["exact_match"], results["accuracy"]) == (exact, accuracy)


def test_blanks_that_word_pieces_put_into_an_answer_are_undone():
    rows = [row("t-shirt", answers=["t-shirt"] * 4)]
    results = evaluate([[T, DASH, SHIRT]], rows, return_predictions=True)
    assert results["predictions"] == ["t-shirt"]
    assert (results["exact_match"], results["accuracy"]) == (1.0, 1.0)


def test_several_annotators_are_scored_officially():
    answers = ["yes"] * 3 + ["no"] * 7
    results = evaluate([[YES]], [row("no", answers=answers)])
    assert results["accuracy"] == pytest.approx(0.9)
    assert results["exact_match"] == 0.0


def test_accuracy_is_reported_by_kind_and_weighs_rows_not_batches():
    rows = [row("yes", "yes/no"), row("no", "yes/no"), row("2", "number")]
    results = evaluate([[YES], [YES], [TWO]], rows)
    assert results == {
        "val_loss": pytest.approx((0.5 * 2 + 2 * 1) / 3),
        "accuracy": pytest.approx(2 / 3),
        "exact_match": pytest.approx(2 / 3),
        "accuracy/yes_no": 0.5,
        "accuracy/number": 1.0,
    }


def test_predictions_and_labels_are_returned_in_order_when_asked():
    results = evaluate(
        [[YES], [NO], [TWO]],
        [row("yes"), row("yes"), row("2")],
        return_predictions=True,
    )
    assert results["predictions"] == ["yes", "no", "2"]
    assert results["labels"] == ["yes", "yes", "2"]
    assert results["records"][1] == {
        **row("yes"),
        "prediction": "no",
        "accuracy": 0.0,
        "exact_match": 0.0,
    }


def test_without_rows_the_labels_are_decoded():
    batch = {
        "question": torch.arange(2),
        "labels": torch.tensor([[DEC, YES, SEP, -100], [DEC, T, DASH, SHIRT]]),
    }
    evaluator = VQAEvaluator(Model([YES], [T, DASH, SHIRT]), Tokenizer())
    results = evaluator.evaluate([batch], return_predictions=True)
    assert results["labels"] == ["yes", "t-shirt"]
    assert results["exact_match"] == 1.0
    assert "_is_decoded" not in results["records"][0]


def test_generation_is_greedy_and_bounded_by_default():
    model = Model([YES])
    VQAEvaluator(model, Tokenizer()).evaluate(batches_of([row("yes")]))
    assert model.calls == [{"max_new_tokens": 10, "num_beams": 1, "do_sample": False}]


@pytest.mark.parametrize(
    ("options", "most", "told"),
    [
        pytest.param({}, 15, [], id="as long as the longest"),
        pytest.param({"max_new_tokens": 13}, 13, [], id="its end alone is left out"),
        pytest.param(
            {"max_new_tokens": 4},
            4,
            ["max_new_tokens is 4, but a right answer takes 14 with its end: no "
             "prediction can equal it; leave max_new_tokens out, or raise it"],
            id="shorter, which is told once",
        ),
    ],
)  # fmt: skip
def test_an_answer_may_be_as_long_as_the_longest_label(options, most, told, caplog):
    model = Model([YES], [NO])
    long, short = batches_of([row("yes"), row("no")], size=1)
    long["labels"] = torch.tensor([[DEC, *[YES] * 13, SEP, -100]])
    VQAEvaluator(model, Tokenizer(), **options).evaluate([long, long, short])
    assert [call["max_new_tokens"] for call in model.calls][:2] == [most] * 2
    assert model.calls[2]["max_new_tokens"] == options.get("max_new_tokens", 10)
    assert caplog.messages == told


def test_padding_is_no_part_of_an_answer(caplog):
    model, tokenizer = Model([YES]), Tokenizer()
    tokenizer.pad_token_id = 0
    (batch,) = batches_of([row("yes")])
    batch["labels"] = torch.tensor([[DEC, YES, SEP, *[0] * 29]])
    for most in (None, 10):
        VQAEvaluator(model, tokenizer, max_new_tokens=most).evaluate([batch])
    assert [call["max_new_tokens"] for call in model.calls] == [10, 10]
    assert caplog.messages == []


def test_nothing_is_generated_for_the_loss_alone():
    model = Model([YES])
    evaluator = VQAEvaluator(model, Tokenizer(), metrics=["loss"])
    assert evaluator.evaluate(batches_of([row("yes")])) == {"val_loss": 0.0}
    assert model.calls == []


def test_train_mode_is_restored():
    model = Model([YES]).train()
    VQAEvaluator(model, Tokenizer()).evaluate(batches_of([row("yes")]))
    assert model.training


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        pytest.param(
            [row("yes", "yes/no"), row("2", "number")],
            (
                "val_loss",
                "accuracy",
                "exact_match",
                "accuracy/number",
                "accuracy/yes_no",
            ),
            id="kinds are read from the data set's rows",
        ),
        pytest.param(None, None, id="without them the names are not known before"),
    ],
)
def test_metric_names(rows, names):
    loader = SimpleNamespace(dataset=SimpleNamespace(rows=rows))
    assert VQAEvaluator(Model([YES]), Tokenizer()).metric_names(loader) == names


@pytest.mark.parametrize(
    ("model", "processor", "options", "message"),
    [
        pytest.param(nn.Linear(1, 1), Tokenizer(), {}, "generate", id="model"),
        pytest.param(Model([YES]), None, {}, "no tokenizer", id="processor"),
        pytest.param(
            Model([YES]), Tokenizer(), {"metrics": ["f1"]}, "'f1'", id="metric"
        ),
        pytest.param(
            Model([YES]), Tokenizer(), {"max_new_tokens": 0}, "at least 1", id="length"
        ),
    ],
)
def test_what_cannot_work_is_refused_on_construction(
    model, processor, options, message
):
    with pytest.raises(ConfigError, match=message):
        VQAEvaluator(model, processor, **options)


def test_loaders_that_do_not_fit_are_refused():
    evaluator = VQAEvaluator(Model([YES]), Tokenizer())
    with pytest.raises(DataError, match="gave no batch"):
        evaluator.evaluate([])
    with pytest.raises(ConfigError, match="mappings with 'labels'"):
        evaluator.evaluate([(torch.zeros(1), torch.zeros(1))])
