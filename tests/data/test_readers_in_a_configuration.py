"""A configuration names a reader, or a path alone: the pipeline reads the same rows."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.images.picture import EmbeddedPicture
from trainbus_data.readers.choose import reader_of
from trainbus_data.rows import indexed_rows
from training.errors import DataError

BOS = 5
COLOURS = ("red", "green", "blue")
ROWS = [
    {"image": f"{colour}.png", "question": "what color is this?", "answer": colour}
    for colour in COLOURS
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of rows in every layout, and their pictures."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (32, 32), colour)
        picture.save(folder / f"{colour}.png")
        picture.save(folder / f"{number}.png")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    table = [",".join(row.values()) + "\n" for row in ROWS]
    questions = [
        {"image_id": n, "question_id": n, "question": row["question"]}
        for n, row in enumerate(ROWS)
    ]
    annotations = [
        {"image_id": n, "question_id": n, "multiple_choice_answer": row["answer"],
         "answers": 10 * [{"answer": row["answer"]}], "answer_type": "other"}
        for n, row in enumerate(ROWS)
    ]  # fmt: skip
    for name, text in {
        "rows.jsonl": lines,
        "lines.json": lines,
        "rows.json": json.dumps(ROWS),
        "data.json": json.dumps({"data": ROWS}),
        "rows.csv": "image,question,answer\n" + "".join(table),
        "other.csv": "image,prompt,label\n" + "".join(table),
        "q.json": json.dumps({"questions": questions}),
        "a.json": json.dumps({"annotations": annotations}),
    }.items():
        (folder / name).write_text(text)
    return folder


PAIR = {"questions": "q.json", "annotations": "a.json", "images": "{image_id}.png"}
LAYOUTS: dict[str, tuple[Any, dict[str, str]]] = {
    "JSON lines": ("rows.jsonl", {}),
    "JSON lines called .json": ("lines.json", {}),
    "a JSON list": ("rows.json", {}),
    "a list in an object": ({"json": {"path": "data.json", "key": "data"}}, {}),
    "a table": ("rows.csv", {}),
    "a table of other names": (
        {"csv": {"path": "other.csv"}},
        {"question": "prompt", "answer": "label"},
    ),
    "questions and annotations": ({"vqa_v2": PAIR}, {}),
}
each_layout = pytest.mark.parametrize(
    ("source", "fields"), LAYOUTS.values(), ids=LAYOUTS.keys()
)


def pipeline(folder: Path, source: Any, **others: Any) -> DataPipeline:
    """Return a pipeline over ``source``, which is relative to ``folder``."""
    return DataPipeline({"train": source, "root": str(folder), **others})


@each_layout
@pytest.mark.parametrize("limit", [64, 0], ids=["held", "indexed"])
def test_rows_are_the_same_in_every_layout(folder, source, fields, limit):
    found = pipeline(folder, source, fields=fields, index_above_mb=limit)
    assert found.is_indexed("train") == (limit == 0)
    rows = list(found.rows("train"))
    told = [{key: row[key] for key in ("question", "answer")} for row in rows]
    assert told == [{key: row[key] for key in told[0]} for row in ROWS]
    assert len(rows[0]["answers"]) == (10 if "vqa_v2" in source else 1)


@each_layout
@pytest.mark.parametrize("limit", [64, 0], ids=["held", "indexed"])
def test_batches_are_the_same_in_every_layout(folder, tiny, source, fields, limit):
    expected, found = (
        batches(folder, tiny, *each)
        for each in (("rows.jsonl", {}, 64), (source, fields, limit))
    )
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def batches(
    folder: Path, tiny: Mapping[str, Any], source: Any, fields: Any, limit: int
) -> list[Any]:
    made = DataPipeline(
        {"train": source, "root": str(folder), "fields": fields, "batch_size": 2,
         "index_above_mb": limit, "shuffle": False},
        processor=tiny["processor"],
        bos_token_id=BOS,
    )  # fmt: skip
    made.setup()
    return list(made.get_train_dataloader())


def test_workers_read_rows_that_are_kept(folder, tiny):
    made = DataPipeline(
        {"train": {"vqa_v2": PAIR}, "root": str(folder), "num_workers": 2,
         "index_above_mb": 0, "batch_size": 1, "shuffle": False},
        processor=tiny["processor"],
        bos_token_id=BOS,
    )  # fmt: skip
    made.setup()
    rows = [batch.rows[0] for batch in made.get_train_dataloader()]
    assert [row["question_id"] for row in rows] == [0, 1, 2]


def test_an_embedded_picture_is_shown_as_one_in_a_file(folder, tiny):
    path = folder / "lab.py"
    path.write_text(
        "from pathlib import Path\n"
        "class Packed:\n"
        "    def __init__(self, path: str) -> None:\n"
        "        self.root = Path(path)\n"
        "        self.fingerprint = 'packed'\n"
        "    def __len__(self):\n"
        "        return 3\n"
        "    def __getitem__(self, index):\n"
        "        content = (self.root / f'{index}.png').read_bytes()\n"
        "        return {'image': content, 'question': 'what color is this?',\n"
        "                'answer': ('red', 'green', 'blue')[index]}\n"
        "    def place(self, index):\n"
        "        return f'packed:#{index + 1}'\n"
    )
    source = {f"{path}:Packed": {"path": str(folder)}}
    expected, found = (
        batches(folder, tiny, each, {}, 64) for each in ("rows.jsonl", source)
    )
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert all(isinstance(row["image"], EmbeddedPicture) for row in other.rows)
        assert json.dumps(other.rows[0]["image"]).startswith('"sha256:')


def test_what_a_reader_says_of_its_rows_is_compared_where_it_says_more_than_they_do(
    folder, tiny
):
    (folder / "versioned.py").write_text(
        "from trainbus_data.readers.csv_table import CsvTable\n"
        "class Versioned(CsvTable):\n"
        "    def __init__(self, path: str, version: str) -> None:\n"
        "        super().__init__(path)\n"
        "        self.fingerprint = version\n"
    )
    path = str(folder / "rows.csv")
    own = {f"{folder / 'versioned.py'}:Versioned": {"path": path, "version": "v2"}}
    found = {}
    for name, source in {"shipped": path, "own": own}.items():
        made = pipeline(folder, source)
        made.use_processor(tiny["processor"], BOS)
        made.setup()
        found[name] = made.get_train_dataloader().dataset
    assert found["own"].fingerprint == found["shipped"].fingerprint
    assert found["own"].source_fingerprint == "v2"
    assert found["shipped"].source_fingerprint is None
    assert pickle.loads(pickle.dumps(found["own"]))._reader is None


def test_a_fault_of_all_rows_is_told_once(folder):
    source = {"csv": {"path": "rows.csv", "images": "{img}.png"}}
    with pytest.raises(DataError) as caught:
        pipeline(folder, source).rows("train")
    first, told, more = str(caught.value).split("\n")
    assert first == f"3 of 3 rows of {folder / 'rows.csv'} cannot be used; mend them:"
    assert "rows.csv:2: lacks 'img'" in told
    assert more == "  ... and 2 more with that fault: lines 3, 4"


def test_a_fault_far_into_a_large_source_is_told_before_training(folder, monkeypatch):
    monkeypatch.setattr(indexed_rows, "NUM_CHECKED", 1)
    path = folder / "rows.csv"
    path.write_text(path.read_text() + "too,few\n")
    with pytest.raises(DataError, match=r"rows\.csv:5: has 2 cells, where the head"):
        pipeline(folder, "rows.csv", index_above_mb=0).rows("train")


def test_bad_rows_are_left_out_where_that_is_asked_for(folder, caplog):
    path = folder / "rows.csv"
    path.write_text(path.read_text() + "too,few\nno.png,what?,red\n")
    found = pipeline(folder, "rows.csv", on_bad_row="skip", max_bad_fraction=0.5)
    assert len(found.rows("train")) == 3
    assert "rows.csv:5: has 2 cells" in caplog.text
    assert "rows.csv:6: image 'no.png' does not exist" in caplog.text


MISTAKES: dict[str, tuple[Any, str]] = {
    "an option": (
        {"csv": {"pth": "rows.csv"}},
        r"data.train.csv.pth is no option.*",
    ),
    "a reader": (
        {"cvs": {"path": "rows.csv"}},
        r"reader 'cvs' is not i.*'csv'",
    ),
    "none": ({"csv": {}}, r"data.train.csv.path is missing"),
    "a value": (
        {"json": {"path": "rows.json", "key": 3}},
        r"key is 3, but must be",
    ),
    "a layout": (
        {"csv": {"path": "rows.json"}},
        r"is one JSON array; read it",
    ),
    "a bare one": ("q.json", r"questions of VQA v2.*read it with \{vqa_v2: "),
}


@pytest.mark.parametrize(("source", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_by_the_plan_in_a_sentence(
    folder: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    tree = {"data": {"train": source}, "model": {"build": {}}}
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    code, _, said = command("plan", "run.yaml")
    assert code in (2, 3)
    assert "Traceback" not in said
    assert len(said.strip().split("\n")) <= 2

    assert re.search(words, said.replace("\n", " ")), said


@pytest.mark.parametrize(
    ("name", "content", "reader"),
    [
        ("rows.jsonl", "{}\n{}\n", "jsonl"),
        ("rows.JSONL", "{}\n{}\n", "jsonl"),
        ("rows.txt", "{}\n{}\n", "jsonl"),
        ("rows", "{}\n{}\n", "jsonl"),
        ("rows.csv", "a,b\n", "csv"),
        ("rows.tsv", "a\tb\n", "csv"),
        ("rows.parquet", "PAR1", "hf"),
        ("rows.arrow", "ARROW1", "hf"),
        ("rows.json", "[{}]", "json"),
        ("rows.json", json.dumps({"data": [{"a": 1}]}), "json"),
        ("rows.json", json.dumps({"images": [{"id": 1}], "n": 2}), "json"),
        ("rows.json", "{}\n{}\n", "jsonl"),
        ("rows.json", json.dumps(ROWS[0]), "jsonl"),
        ("rows.json", json.dumps({"questions": [{"question": ""}]}), "json"),
        ("folder", ["cat/1.png"], "folders"),
        ("folder", ["state.json"], "hf"),
        ("folder", ["metadata.jsonl"], "hf"),
    ],
)
def test_a_path_alone_chooses_its_reader(tmp_path, name, content, reader):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    for each in content if isinstance(content, list) else ():
        (path / each).parent.mkdir(parents=True)
        (path / each).touch()
    assert reader_of(path) == reader


PACKED = """\
from pathlib import Path
class Packed:
    def __init__(self, path: str, answer: str) -> None:
        self.root, self.fingerprint, self.answer = Path(path), 'packed', answer
    def __len__(self):
        return 12
    def __getitem__(self, index):
        content = (self.root / '0.png').read_bytes()
        answer = self.answer * (index + 1)
        return {'image': content, 'question': 'what?', 'answer': answer}
    def place(self, index):
        return f'packed:#{index + 1}'
"""


def packed(folder, answer: str):
    (folder / "packed.py").write_text(PACKED)
    name = f"{folder / 'packed.py'}:Packed"
    return pipeline(folder, {name: {"path": str(folder), "answer": answer}})


def test_no_example_names_a_picture_that_no_file_holds(folder):
    assert packed(folder, "red").example("train") == {}
    assert pipeline(folder, "rows.jsonl").example("train")["image"].endswith(".png")


def test_bad_rows_are_told_in_their_order_wherever_their_numbers_stand(folder):
    with pytest.raises(DataError) as caught:
        packed(folder, "").rows("train")
    told = re.findall(r"#(\d+)", str(caught.value))
    assert told == [str(number + 1) for number in range(12)]
