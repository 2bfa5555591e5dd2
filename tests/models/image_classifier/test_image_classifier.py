"""Image classifiers conform, load with the right head, and learn colours."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import colours

from trainbus_data.image_classification.task import ImageClassification
from trainbus_models.image_classifier.family import ImageClassifier
from training.errors import ConfigError, DataError
from training.testing import FAMILY_CHECKS, assert_family_conforms

ROWS = colours(12)
LABELS = sorted({row["label"] for row in ROWS})


def classifier() -> ImageClassifier:
    family = ImageClassifier()
    family.task = ImageClassification()
    return family


def relabelled(**names: str) -> list[dict[str, Any]]:
    return [{**row, "label": names.get(row["label"], row["label"])} for row in ROWS]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    """Return a small model and its processor; do not change them."""
    return classifier().build(ROWS)


def test_the_family_conforms() -> None:
    assert_family_conforms(ImageClassifier(), ImageClassification(), ROWS)


class CountsTwice(ImageClassifier):
    def collate(self, processor: Any, rows: Any) -> Any:
        batch = super().collate(processor, rows)
        batch.loss_weight = len({row.get("label") for row in rows})
        return batch


class SortsNames(ImageClassifier):
    def predict(self, model: Any, processor: Any, batch: Any) -> list[str]:
        return sorted(super().predict(model, processor, batch))


@pytest.mark.parametrize(
    ("family", "check"), [(CountsTwice, "weight"), (SortsNames, "predictions")]
)
def test_the_kit_finds_a_mistake(family: type[ImageClassifier], check: str) -> None:
    others = set(FAMILY_CHECKS) - {check}
    with pytest.raises(AssertionError, match=f"\n{check}: "):
        assert_family_conforms(family(), ImageClassification(), ROWS, skip=others)


def test_several_batches_are_one_batch_to_a_millionth(tiny) -> None:
    def loss_of(*cut: list[dict[str, Any]]) -> float:
        batches = [classifier().collate(tiny[1], rows) for rows in cut]
        with torch.no_grad():
            sums = [float(tiny[0](**b).loss.double()) * b.loss_weight for b in batches]
        return sum(sums) / sum(batch.loss_weight for batch in batches)

    whole = loss_of(ROWS)
    assert loss_of(ROWS[:3], ROWS[3:]) == pytest.approx(whole, rel=1e-6)
    assert loss_of(*([row] for row in ROWS)) == pytest.approx(whole, rel=1e-6)


def test_labels_are_those_of_the_training_rows_in_order(tiny) -> None:
    model, processor = tiny
    assert processor.label_names == LABELS
    assert model.config.id2label == dict(enumerate(LABELS))


def test_an_unseen_label_is_no_part_of_the_loss_and_never_right(tiny) -> None:
    family = classifier()
    rows = [ROWS[0], ROWS[1] | {"label": "mauve"}]
    batch = family.collate(tiny[1], rows)
    assert batch["labels"].tolist()[1] == -100
    assert batch.loss_weight == 1
    with torch.no_grad():
        both = tiny[0](**batch).loss
        alone = tiny[0](**family.collate(tiny[1], rows[:1])).loss
        assert float(both) == pytest.approx(float(alone), rel=1e-5)
        assert "mauve" not in family.predict(*tiny, batch)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_that_no_training_row_has_are_told(tiny, split: str, caplog) -> None:
    family = classifier()
    family.split = split
    rows = [*ROWS[:5], ROWS[0] | {"label": "mauve"}, {"image": ROWS[0]["image"]}]
    family.prepare(tiny[1], rows)
    assert caplog.messages == [
        f"the model is not trained on the labels of 1 of 6 {split} rows that were "
        "looked at: mauve (1); they are left out of val_loss and count as wrong"
    ]
    caplog.clear()
    family.prepare(tiny[1], ROWS)
    assert caplog.messages == []


def test_validation_rows_without_a_label_of_training_are_refused(tiny) -> None:
    family = classifier()
    family.split = "validation"
    rows = [{**row, "label": "mauve"} for row in ROWS[:4]]
    with pytest.raises(DataError, match=r"4 of 4 .* mauve \(4\); name rows with the"):
        family.prepare(tiny[1], rows)
    family.split = "test"  # where a server's form may have anything
    family.prepare(tiny[1], rows)


def test_rows_without_labels_are_predicted(tiny) -> None:
    batch = classifier().collate(tiny[1], [{"image": row["image"]} for row in ROWS])
    assert "labels" not in batch
    assert batch.loss_weight == 0


class HasNaN(torch.nn.Module):
    """Returns a NaN among the logits of the first row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **given: Any) -> Any:
        outputs = self.model(**given)
        outputs.logits[0, -1] = torch.nan
        return outputs


def test_of_a_row_with_a_nan_among_its_logits_nothing_is_predicted(
    tiny, caplog
) -> None:
    model, processor = tiny
    family = classifier()
    batch = family.collate(processor, ROWS[:3])
    with torch.no_grad():
        usual = family.predict_with_confidence(model, processor, batch)
        sure = family.predict_with_confidence(HasNaN(model), processor, batch)
        said = family.predict(HasNaN(model), processor, batch)
    assert said == [label for label, _ in sure] == [None, *(n for n, _ in usual[1:])]
    assert math.isnan(sure[0][1])
    assert sure[1:] == usual[1:]
    (told,) = caplog.messages
    assert "NaN among the logits of 1 row " in told


def test_one_label_alone_is_refused() -> None:
    rows = [{**row, "label": "thing"} for row in ROWS]
    with pytest.raises(ConfigError, match=r"have 1 label \(thing\)"):
        classifier().build(rows)


def test_labels_that_differ_in_their_unicode_form_only_are_told(caplog) -> None:
    classifier().build(relabelled(red="caf\u00e9", blue="cafe\u0301"))
    assert caplog.messages == [
        "labels of the training rows differ in their Unicode form only and are learnt "
        "as different ones: ['cafe\\u0301', 'caf\\xe9']; write them alike (NFC)"
    ]


def test_a_validation_label_in_another_unicode_form_is_told_as_such(caplog) -> None:
    _, processor = classifier().build(relabelled(red="caf\u00e9"))
    family = classifier()
    family.split = "validation"
    family.prepare(processor, relabelled(red="cafe\u0301"))
    (told,) = caplog.messages
    assert (
        "in their Unicode form only from 'cafe\\u0301': write them alike (NFC)" in told
    )
    caplog.clear()
    family.prepare(processor, relabelled(red="tea"))
    assert "Unicode" not in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS, id="the same labels"),
        pytest.param([r for r in ROWS if r["label"] in LABELS[:2]], id="some of them"),
    ],
)
def test_a_model_of_these_labels_keeps_its_head(tiny, tmp_path: Path, rows) -> None:
    classifier().export(*tiny, tmp_path)
    model, processor = classifier().load(os.fspath(tmp_path), rows)
    assert torch.equal(model.classifier.weight, tiny[0].classifier.weight)
    assert processor.label_names == LABELS
    assert not model.training


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(relabelled(red="crimson"), id="as many, another name"),
        pytest.param(relabelled(red="crimson", blue="crimson"), id="fewer"),
        pytest.param([*ROWS, ROWS[0] | {"label": "mauve"}], id="one more"),
    ],
)
def test_a_head_of_other_labels_is_made_anew(tiny, tmp_path: Path, rows) -> None:
    classifier().export(*tiny, tmp_path)
    model, processor = classifier().load(os.fspath(tmp_path), rows)
    labels = sorted({row["label"] for row in rows})
    assert processor.label_names == labels
    assert model.config.id2label == dict(enumerate(labels))
    old, new = tiny[0].classifier.weight, model.classifier.weight
    assert len(new) == len(labels)
    assert not any(torch.equal(one, other) for one in old for other in new)
    same = model.vit.embeddings.cls_token, tiny[0].vit.embeddings.cls_token
    assert torch.equal(*same)


def test_labels_that_a_loaded_model_knows_and_learns_anew_are_told(
    tiny, tmp_path: Path, caplog
) -> None:
    classifier().export(*tiny, tmp_path)
    classifier().load(os.fspath(tmp_path), relabelled(red="crimson"))
    (told,) = caplog.messages
    assert f"knows {len(LABELS) - 1} of the {len(LABELS)} labels" in told
    assert "but not crimson: it gets a fresh head, and all of them are learnt" in told
    caplog.clear()
    classifier().load(os.fspath(tmp_path), ROWS)
    others = {label: f"new {label}" for label in LABELS}
    classifier().load(os.fspath(tmp_path), relabelled(**others))
    assert caplog.messages == [], "it keeps its head, or has nothing to keep"


def test_a_model_without_a_head_gets_one(tiny, tmp_path: Path) -> None:
    rows = relabelled(red="crimson")
    tiny[0].vit.save_pretrained(tmp_path)
    tiny[1].save_pretrained(tmp_path)
    model, _ = classifier().load(os.fspath(tmp_path), rows)
    assert len(model.classifier.weight) == len(LABELS)
    kept = model.vit.layernorm.weight, tiny[0].vit.layernorm.weight
    assert torch.equal(*kept)


def test_weights_below_the_head_must_be_there(tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    classifier().export(*tiny, tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["vit.embeddings.cls_token"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"such as vit\.embeddings\.cls_token"):
        classifier().load(os.fspath(tmp_path), relabelled(red="crimson"))


@pytest.mark.slow
def test_two_layers_learn_colours() -> None:
    rows, begun = colours(520), time.process_time()
    family = classifier()
    model, processor = family.build(rows[:400])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    draws = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(10):
        order = torch.randperm(400, generator=draws).tolist()
        for start in range(0, 400, 32):
            some = [rows[index] for index in order[start : start + 32]]
            model(**family.collate(processor, some)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        said = family.predict(model, processor, family.collate(processor, rows[400:]))
    right = [guess == row["label"] for guess, row in zip(said, rows[400:], strict=True)]
    assert sum(right) / len(right) >= 0.95
    assert time.process_time() - begun < 20
