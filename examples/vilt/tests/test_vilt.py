"""ViLT conforms, and its answers are those of the list."""

import json

import pytest
import torch
from PIL import Image
from transformers import ViltForQuestionAnswering

from trainbus_vilt import Vilt
from training import Task
from training.testing import FAMILY_CHECKS, assert_family_conforms

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 150, 60),
    "blue": (40, 60, 220),
    "yellow": (230, 210, 30),
}


class Plain(str):
    """A picture of one colour, named by it."""

    __slots__ = ()

    def open(self):
        return Image.new("RGB", (64, 64), COLOURS[self])


class Asked(Task):
    """The fields of vqa that the family reads."""

    fields = {"image": "picture", "question": "text", "answer": "text"}  # noqa: RUF012
    target = "answer"
    metrics = ("accuracy",)

    def score(self, prediction, row):
        return {"accuracy": float(prediction == row["answer"])}


ROWS = [
    {"image": Plain(name), "question": question, "answer": answer}
    for name in COLOURS
    for question, answer in (
        ("what color is it?", name),
        ("is the picture red?", "yes" if name == "red" else "no"),
    )
]


def family(**options):
    made = Vilt(**options)
    made.task = Asked()
    return made


def test_it_conforms():
    assert_family_conforms(Vilt(), Asked(), ROWS)


class Unforked(Vilt):
    def predict(self, model, processor, batch):
        asked = {name: value for name, value in batch.items() if name != "labels"}
        best = model(**asked).logits.argmax(dim=-1)
        return [processor.answers[number] for number in best.tolist()]


def test_without_a_fork_it_would_draw_random_numbers():
    others = set(FAMILY_CHECKS) - {"influence"}
    with pytest.raises(AssertionError, match="from the generator of torch"):
        assert_family_conforms(Unforked(), Asked(), ROWS, skip=others)


def test_an_answer_that_is_not_in_the_list_is_counted_and_not_learnt(caplog):
    rows = [*ROWS, ROWS[0] | {"answer": "mauve"}]
    made = family(num_answers=6)
    _, processor = made.build(rows)
    assert "1 of 9 answers are not in the list" in caplog.text
    batch = made.collate(processor, rows[-1:])
    assert not batch["labels"].any()
    assert batch.loss_weight == 1


def test_of_a_row_with_a_nan_among_its_logits_no_answer_is_predicted():
    made = family()
    model, processor = made.build(ROWS)
    for weight in model.parameters():
        torch.nn.init.constant_(weight, torch.nan)
    batch = made.collate(processor, ROWS)
    with torch.no_grad():
        assert made.predict(model, processor, batch) == [""] * len(ROWS)


def test_a_row_without_an_answer_is_no_part_of_the_loss_of_its_batch():
    made = family()
    model, processor = made.build(ROWS)
    bare = {key: value for key, value in ROWS[0].items() if key != "answer"}
    batch, alone = made.collate(processor, [bare, *ROWS]), made.collate(processor, ROWS)
    assert batch.loss_weight == len(ROWS)
    with torch.no_grad():
        assert torch.allclose(model(**batch).loss, model(**alone).loss, rtol=1e-5)


def test_the_loss_is_the_librarys_where_every_row_has_an_answer():
    made = family()
    model, processor = made.build(ROWS)
    library = ViltForQuestionAnswering(model.config).eval()
    library.load_state_dict(model.state_dict())
    batch = made.collate(processor, ROWS)
    with torch.no_grad():
        assert torch.allclose(model(**batch).loss, library(**batch).loss, rtol=1e-6)


@pytest.mark.parametrize("asked", [{}, {"return_dict": False}])
def test_its_outputs_come_in_the_librarys_form_and_order(asked):
    made = family()
    model, processor = made.build(ROWS)
    library = ViltForQuestionAnswering(model.config).eval()
    library.load_state_dict(model.state_dict())
    for batch in (made.collate(processor, ROWS), made.collate(processor, ROWS[:1])):
        with torch.no_grad():
            own, plain = model(**batch, **asked), library(**batch, **asked)
        assert type(own) is type(plain)
        assert len(own[:]) == len(plain[:]) == 2
        assert all(map(torch.allclose, own[:], plain[:]))


def test_an_answer_of_three_annotators_is_fully_right():
    made = family()
    _, processor = made.build(ROWS)
    row = ROWS[0] | {"answers": ["red"] * 5 + ["yes"] * 2 + ["a rose"] * 3}
    scores = made.collate(processor, [row])["labels"][0]
    told = dict(zip(processor.answers, scores.tolist(), strict=True))
    assert told["red"] == 1.0
    assert told["yes"] == pytest.approx(2 / 3)
    assert sum(told.values()) == pytest.approx(5 / 3)


def test_a_saved_model_is_loaded_with_its_answers(tmp_path):
    made = family()
    model, processor = made.build(ROWS)
    made.export(model, processor, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ViltForQuestionAnswering"]
    loaded, again = made.load(str(tmp_path), [])
    assert again.answers == processor.answers
    batch = made.collate(again, ROWS)
    with torch.no_grad():
        both = [made.predict(m, again, batch) for m in (model, loaded)]
    assert both[0] == both[1]
