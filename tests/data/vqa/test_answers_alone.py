"""Rows of several answers and no one that is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.recognise import recognise
from trainbus_data.vqa.task import VQA
from training.errors import ConfigError, DataError
from training.recipes.family import ModelFamily

TABLE = "image,question,{}\n1.png,which?,car; red; red\n2.png,what?,two; one\n"


def pipeline(path: Path, **config: Any) -> DataPipeline:
    for number in (1, 2):
        (path.parent / f"{number}.png").touch()
    given = {"train": path, **config}
    return DataPipeline(given, task=VQA(), family=ModelFamily())


def table(folder: Path, text: str) -> Path:
    (folder / "rows.csv").write_text(text)
    return folder / "rows.csv"


@pytest.mark.parametrize("limit", [64, 0], ids=["held", "indexed"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_of_answers_alone_the_most_frequent_is_learnt(tmp_path, suffix, limit) -> None:
    path = table(tmp_path, TABLE.format("answers"))
    if suffix == "jsonl":
        path = tmp_path / "rows.jsonl"
        rows = [
            {"image": "1.png", "question": "which?", "answers": ["car", "red", "red"]},
            {"image": "2.png", "question": "what?", "answers": ["two", "one"]},
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = pipeline(path, index_above_mb=limit).rows("train")
    assert [row["answer"] for row in rows] == ["red", "two"]
    assert [row["answers"] for row in rows] == [["car", "red", "red"], ["two", "one"]]


def test_answers_of_another_name_stand_for_the_answer_too(tmp_path) -> None:
    path = table(tmp_path, TABLE.format("said"))
    source = {"csv": {"path": str(path), "lists": ["said"]}}
    made = pipeline(path, train=source, fields={"answers": "said"})
    assert [row["answer"] for row in made.rows("train")] == ["red", "two"]


def test_a_row_with_neither_is_refused_by_its_line(tmp_path) -> None:
    path = table(tmp_path, TABLE.format("answers") + "2.png,what?,\n")
    with pytest.raises(DataError, match=r"rows\.csv:4: lacks 'answer'"):
        pipeline(path).rows("train")


def test_an_answer_that_is_named_and_is_not_there_is_refused_beside_answers(
    tmp_path,
) -> None:
    path = table(tmp_path, TABLE.format("answers"))
    with pytest.raises(ConfigError, match=r"data\.fields\.answer is 'reply'"):
        pipeline(path, fields={"answer": "reply"}).rows("train")


def test_such_rows_are_recognised_as_questions(tmp_path) -> None:
    found = recognise(str(table(tmp_path, TABLE.format("answers"))))
    assert next(iter(found.tasks)) == "vqa"
    assert "answer" not in found.tasks["vqa"]
