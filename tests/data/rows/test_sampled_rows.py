"""What is learnt from rows that are too many to hold: no target is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainbus_data import data_pipeline
from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.image_classification.task import ImageClassification
from trainbus_models.image_classifier.family import ImageClassifier
from training.errors import DataError


@pytest.fixture(autouse=True)
def learns_from_ten(monkeypatch) -> None:
    monkeypatch.setattr(data_pipeline, "NUM_LEARNT", 10)


def pipeline_of(labels: list[str], folder: Path, **more: Any) -> DataPipeline:
    """Return one whose training rows, in a file, have these labels."""
    path = folder / "train.jsonl"
    rows = [{"image": "red.png", "what": label} for label in labels]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "red.png")
    config = {"train": str(path), "index_above_mb": 0, "fields": {"label": "what"}}
    family = ImageClassifier()
    family.task = ImageClassification()
    return DataPipeline(config | more, task=family.task, family=family)


def labels_of(pipeline: DataPipeline) -> set[str]:
    return {row["label"] for row in pipeline.training_rows()}


@pytest.mark.parametrize("period", [2, 4, 5, 10])
def test_labels_that_take_turns_are_all_learnt(period: int, tmp_path: Path) -> None:
    labels = [str(number % period) for number in range(100)]
    assert labels_of(pipeline_of(labels, tmp_path)) == set(labels)


def test_texts_that_are_more_than_the_rows_to_learn_from_are_no_labels(
    tmp_path: Path,
) -> None:
    labels = [str(number) for number in range(100)]
    assert len(pipeline_of(labels, tmp_path).training_rows()) == 10


def test_a_label_of_one_row_is_learnt(tmp_path: Path) -> None:
    labels = ["common"] * 57 + ["rare"] + ["common"] * 57
    pipeline = pipeline_of(labels, tmp_path)
    assert labels_of(pipeline) == {"common", "rare"}
    assert len(pipeline.training_rows()) <= 12
    assert pipeline.training_rows()[:] == pipeline.training_rows()[:]


def test_a_label_behind_rows_that_are_left_out_is_learnt(tmp_path: Path) -> None:
    labels = ["common", " ", *["common"] * 57, "rare", " ", *["common"] * 57]
    skips = {"on_bad_row": "skip", "max_bad_fraction": 0.1}
    assert labels_of(pipeline_of(labels, tmp_path, **skips)) == {"common", "rare"}


def test_a_bad_target_is_named_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainbus_data.rows.indexed_rows.NUM_CHECKED", 1)
    pipeline = pipeline_of(["one", "two"] * 20 + [""], tmp_path)
    with pytest.raises(DataError, match=r"train\.jsonl:41: label is empty"):
        labels_of(pipeline)


def test_a_parquet_file_tells_its_targets_without_its_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["cat", "dog", "owl"]
    kinds = [0] * 40 + [2] + [0] * 40 + [None] + [1]
    pipeline_of([], tmp_path)
    picture = (tmp_path / "red.png").read_bytes()
    features = datasets.Features(
        {"image": datasets.Image(), "what": datasets.ClassLabel(names=names)}
    )
    rows = {"image": [{"bytes": picture, "path": None}] * len(kinds), "what": kinds}
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    pipeline = pipeline_of(
        [],
        tmp_path,
        train={"hf": {"path": str(path)}},
        on_bad_row="skip",
        max_bad_fraction=0.1,
    )
    assert labels_of(pipeline) == set(names)
    values = list(pipeline.rows("train").values_of("label"))
    assert values == [names[kind] for kind in kinds if kind is not None]


@pytest.mark.parametrize("shown", [2, 40])
def test_validation_rows_are_looked_at_for_labels_that_training_lacks(
    shown: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(data_pipeline, "NUM_SHOWN", shown)
    train = pipeline_of(["one", "two"], tmp_path)
    _, processor = train.family.build(train.training_rows())
    config = {"train": None, "validation": str(tmp_path / "train.jsonl")}
    pipeline = pipeline_of(["other"] * 40, tmp_path, **config)
    pipeline.use_processor(processor)
    with pytest.raises(DataError, match=rf"{shown} of {shown} validation rows that"):
        pipeline.setup()


def test_rows_that_are_shown_are_not_the_first_of_a_sorted_file(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(data_pipeline, "NUM_SHOWN", 20)
    train = pipeline_of(["one", "two"], tmp_path)
    _, processor = train.family.build(train.training_rows())
    config = {"train": None, "validation": str(tmp_path / "train.jsonl")}
    pipeline = pipeline_of(["other"] * 40 + ["two"] * 40, tmp_path, **config)
    pipeline.use_processor(processor)
    pipeline.setup()
    assert "of 20 validation rows" in caplog.text


def test_a_training_row_of_a_label_that_the_model_lacks_is_refused(
    tmp_path: Path,
) -> None:
    pipeline = pipeline_of(["one", "two", "three"], tmp_path, batch_size=3)
    _, processor = pipeline.family.build(pipeline.training_rows()[:2])
    pipeline.use_processor(processor)
    pipeline.setup()
    with pytest.raises(DataError, match=r"red\.png' has label 'three', which the mod"):
        next(iter(pipeline.get_train_dataloader()))
