"""A field that no row has is a wrong name; one that some rows lack is their fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.rows import field_names, indexed_rows
from training.errors import ConfigError, DataError
from training.recipes.family import ModelFamily
from training.recipes.task import Task

ROWS = [{"image": f"{n}.png", "prompt": "what?", "label": "red"} for n in range(3)]


class Asked(Task):
    """A row as the files of these tests have it, with something it may do without."""

    fields: ClassVar = {
        "question": "text", "answer": "text", "kind": "text?", "number": "id",
    }  # fmt: skip
    target = "answer"


def as_folders(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for n in range(3):
        path = folder / "set" / "red" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder / "set"


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    # Not "datasets" itself: a mere folder of that name can be imported, too.
    arrow = pytest.importorskip("datasets.arrow_dataset")
    arrow.Dataset.from_list(rows).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def as_text(name: str, text: Callable[[list[dict[str, Any]]], str]) -> Any:
    def make(folder: Path, rows: list[dict[str, Any]]) -> Path:
        (folder / name).write_text(text(rows))
        return folder / name

    return make


def as_pair(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    listed = [
        {"image_id": n, "question_id": n, "question": "what?", "answers": ["red"]}
        for n in range(len(rows))
    ]
    (folder / "q.json").write_text(json.dumps({"questions": listed}))
    path = str(folder / "q.json")
    return {"vqa_v2": {"questions": path, "images": "{image_id}.png"}}


def as_own(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "class Own:\n"
        "    root, fingerprint = Path(), ''\n"
        f"    def __init__(self): self.rows = {rows!r}\n"
        "    def __len__(self): return len(self.rows)\n"
        "    def __getitem__(self, index): return self.rows[index]\n"
        "    def place(self, index): return f'own:{index + 1}'\n"
    )
    return {f"{folder / 'own.py'}:Own": {}}


def as_csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([row.get(name, "") for name in names] for row in rows)]
    return "".join(",".join(line) + "\n" for line in lines)


LAYOUTS = {
    "jsonl": as_text("r.jsonl", lambda rows: "\n".join(map(json.dumps, rows))),
    "json": as_text("r.json", json.dumps),
    "csv": as_text("r.csv", as_csv),
    "folders": as_folders,
    "vqa_v2": as_pair,
    "hf": as_parquet,
    "one's own": as_own,
}  # fmt: skip
#: Where the names are the reader's.
NAMES = {"folders": "image, label", "vqa_v2": "question_id, image, question, "
         "answers, answer"}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache" / "hf"))


def pipeline(task: Task | None = None, /, **config: Any) -> DataPipeline:
    return DataPipeline(config, task=task, family=task and ModelFamily())


def refusal(of: DataPipeline, split: str = "train") -> str:
    with pytest.raises(ConfigError) as caught:
        of.rows(split)
    return str(caught.value)


@pytest.mark.parametrize("limit", [64, 0], ids=["held", "indexed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_that_no_row_has_is_told_once_with_the_names_there_are(
    tmp_path, layout, limit
):
    source = LAYOUTS[layout](tmp_path, ROWS)
    fields: ClassVar = {"question": "promt", "answer": "labels"}
    there = NAMES.get(layout, "image, prompt, label")
    told = refusal(pipeline(train=source, fields=fields, index_above_mb=limit))
    first, second = told.split("\n")
    assert first.startswith("data: data.fields.question is 'promt'")
    assert second.startswith("data: data.fields.answer is 'labels'")
    assert first.endswith(f" has; there are: {there}")
    if layout not in NAMES:
        assert "'promt' (did you mean 'prompt'?), which no row of " in first


@pytest.mark.parametrize("layout", ["jsonl", "json", "csv", "hf", "one's own"])
def test_a_field_that_no_row_has_under_its_own_name_is_told_with_the_way_to_name_it(
    tmp_path, layout
):
    told = refusal(pipeline(train=LAYOUTS[layout](tmp_path, ROWS)))
    assert "\n" not in told
    assert " has 'question' and 'answer', but a row needs them; there are: " in told
    assert told.endswith("data.fields: {question: NAME, answer: NAME}")


@pytest.mark.parametrize("layout", ["jsonl", "json", "csv", "one's own"])
def test_a_field_that_the_first_row_alone_lacks_is_that_rows_fault(tmp_path, layout):
    rows = [{"image": "0.png", "prompt": "what?"}, *ROWS[1:]]
    fields: ClassVar = {"question": "prompt", "answer": "label"}
    source = LAYOUTS[layout](tmp_path, rows)
    with pytest.raises(DataError) as caught:
        pipeline(Asked(), train=source, fields=fields).rows("train")
    first, told = str(caught.value).split("\n")
    assert first.startswith("1 of 3 rows of ")
    place = {"jsonl": "r.jsonl:1", "json": "r.json:1#1", "csv": "r.csv:2"}
    assert f"{place.get(layout, 'own:1')}: lacks 'label'" in told


@pytest.mark.parametrize("wanted", ["kind", "number"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_wrong_name_of_what_a_row_may_do_without_is_refused_too(
    tmp_path, wanted, split
):
    rows = LAYOUTS["jsonl"](tmp_path, [{"question": "a", "answer": "b", "sort": "c"}])
    made = pipeline(Asked(), **{split: rows}, fields={wanted: "sorts"})
    assert "'sorts' (did you mean 'sort'?), which no row of" in refusal(made, split)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"question": "answer"}, "question is 'answer'"),
        ({"answer": "question"}, "answer is 'question'"),
        ({"question": "label", "answer": "label"}, "question is 'label'"),
    ],
)
def test_a_target_in_the_column_of_what_the_model_is_shown_is_refused(
    tmp_path, fields, told, split
):
    row = {"question": "a", "answer": "b", "label": "c"}
    made = pipeline(
        Asked(), **{split: LAYOUTS["jsonl"](tmp_path, [row])}, fields=fields
    )
    assert refusal(made, split) == (
        f"data: data.fields.{told}, which makes question and answer the same column, "
        "so that a model would be shown what it is to predict; name a column for each"
    )


@pytest.mark.parametrize(
    "fields",
    [{"question": "answer", "answer": "question"}, {"kind": "answer"},
     {"answer": "kind"}],
)  # fmt: skip
def test_names_may_be_swapped_and_rows_told_apart_by_their_target(tmp_path, fields):
    row = {"question": "a", "answer": "b", "kind": "c"}
    made = pipeline(Asked(), train=LAYOUTS["jsonl"](tmp_path, [row]), fields=fields)
    (read,) = made.rows("train")
    assert read["answer"] == row[fields.get("answer", "answer")]


def test_what_a_row_may_do_without_need_be_in_one_split_only(tmp_path):
    row = {"question": "a", "answer": "b"}
    train = LAYOUTS["jsonl"](tmp_path, [row])
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(row) + "\n" + json.dumps(row | {"sort": "c"}) + "\n")
    made = pipeline(Asked(), train=train, validation=other, fields={"kind": "sort"})
    assert [row.get("kind") for row in made.rows("validation")] == [None, "c"]
    assert len(made.rows("train")) == 1


@pytest.mark.parametrize("given", [{}, {"label": None}])
def test_a_test_set_does_without_the_target_under_any_name(tmp_path, given):
    rows = LAYOUTS["jsonl"](tmp_path, [{"question": "a"} | given])
    made = pipeline(Asked(), test=rows, fields={"answer": "label"})
    assert [row.keys() for row in made.rows("test")] == [{"question", "number"}]


def test_a_name_that_may_stand_in_rows_not_looked_at_is_warned_of(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(field_names, "NUM_LOOKED_AT", 2)
    monkeypatch.setattr(indexed_rows, "NUM_CHECKED", 2)
    row = {"question": "a", "answer": "b"}
    rows = [*(5 * [row]), row | {"sort": "c"}]
    path = LAYOUTS["jsonl"](tmp_path, rows)
    made = pipeline(Asked(), train=path, fields={"kind": "sort"}, index_above_mb=0)
    assert made.rows("train")[5]["kind"] == "c"
    assert "data.fields.kind is 'sort', which no row of" in caplog.text


def test_rows_that_are_looked_at_are_few_where_the_first_has_every_name(tmp_path):
    class Counted(list[Any]):
        asked = 0

        def __getitem__(self, index: Any) -> Any:
            self.asked += 1
            return super().__getitem__(index)

        def place(self, index: int) -> str:
            return f"counted:{index + 1}"

    rows: Any = Counted(10_000 * [{"a": 1}])
    assert not field_names.look(rows, ["a"]).absent
    assert rows.asked == 1
    assert field_names.look(rows, ["b"]).lacks("b")
    assert rows.asked == 1 + field_names.NUM_LOOKED_AT


@pytest.mark.parametrize("length", [-1, 2**70, "3"])
def test_a_reader_of_no_length_is_named_with_what_it_shall_return(length: Any) -> None:
    class Mine:
        def __len__(self) -> int:
            return length

    with pytest.raises(DataError, match=r"reader Mine is no number of rows .* __len__"):
        field_names.look(Mine(), ["a"])  # type: ignore[arg-type]
