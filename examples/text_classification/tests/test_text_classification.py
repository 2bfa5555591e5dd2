"""The family conforms, learns, and cuts nothing silently that it should not."""

import random

import pytest
import torch

from trainbus_text_classification import TextClassification
from training.testing import FAMILY_CHECKS, assert_family_conforms

ROWS = TextClassification().sample_rows()


def test_it_conforms():
    task = TextClassification()
    assert_family_conforms(task, task, ROWS)


class Counts(TextClassification):
    def collate(self, processor, rows):
        batch = super().collate(processor, rows)
        batch.loss_weight = int(batch["attention_mask"].sum())
        return batch


def test_a_wrong_weight_is_found():
    task = Counts()
    others = set(FAMILY_CHECKS) - {"weight"}
    with pytest.raises(AssertionError, match="loss_weight must be the number"):
        assert_family_conforms(task, task, ROWS, skip=others)


def test_an_unseen_label_is_no_part_of_the_loss():
    task = TextClassification()
    _, processor = task.build(ROWS)
    batch = task.collate(processor, [ROWS[0], {"text": "hm", "label": "new"}])
    assert batch["labels"].tolist() == [1, -100]
    assert batch.loss_weight == 1


def test_a_text_without_a_label_is_no_part_of_the_loss_of_its_batch():
    task = TextClassification()
    model, processor = task.build(ROWS)
    batch = task.collate(processor, [{"text": "hm"}, *ROWS])
    assert batch.loss_weight == len(ROWS)
    with torch.no_grad():
        alone = model(**task.collate(processor, ROWS)).loss
        assert float(model(**batch).loss) == pytest.approx(float(alone), rel=1e-5)


def test_of_a_text_with_a_nan_among_its_logits_nothing_is_predicted():
    task = TextClassification()
    model, processor = task.build(ROWS)
    torch.nn.init.constant_(model.classifier.bias[-1:], torch.nan)
    batch = task.collate(processor, ROWS)
    with torch.no_grad():
        said = task.predict(model, processor, batch)
    assert said == [None] * len(ROWS)


def test_texts_are_cut_to_the_length_that_the_model_has():
    task = TextClassification(max_length=8)
    model, processor = task.build(ROWS)
    batch = task.collate(processor, [{"text": "a lovely film " * 20}])
    assert batch["input_ids"].shape == (1, 8)
    assert task.predict(model, processor, batch)[0] in processor.labels


def test_it_learns_what_makes_the_difference():
    draws = random.Random(0)
    words = "the a film story cast is was and it of very quite"
    rows = []
    for _ in range(300):
        label = draws.choice(["good", "bad"])
        about = draws.choices(words.split(), k=6)
        about.insert(draws.randrange(6), {"good": "lovely", "bad": "awful"}[label])
        rows.append({"text": " ".join(about), "label": label})
    task = TextClassification()
    model, processor = task.build(rows[:200])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step in range(40):
        some = [rows[(step * 25 + n) % 200] for n in range(25)]
        model(**task.collate(processor, some)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        batch = task.collate(processor, rows[200:])
        said = task.predict(model, processor, batch)
    right = [a == row["label"] for a, row in zip(said, rows[200:], strict=True)]
    assert sum(right) / len(right) >= 0.95
