"""Rows that a person asks about: which are left out, and what that costs the others."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from trainbus_data.asked import asked_row, batch_of
from trainbus_data.asked_rows import AskedRows
from trainbus_data.config import DataConfig
from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.dataset import RowsDataset
from trainbus_data.rows.row_sequence import ListedRows
from trainbus_data.vqa.task import VQA
from training import Batch, ConfigError, DataError, ModelFamily, Task


class Sees(Task):
    fields: ClassVar = {"image": "picture", "word": "text", "said": "text"}
    target = "said"


class Opens(ModelFamily):
    """Opens pictures, and takes no word of more than ten letters."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.shown: list[str] = []

    def prepare(self, processor: Any, rows: Sequence[Any]) -> None:
        assert not self.sizes, "before any is answered"
        self.shown += [row["word"] for row in rows]

    def collate(self, processor: Any, rows: Sequence[Any]) -> Batch:
        for row in rows:
            row["image"].open()
            if len(row["word"]) > 10:
                raise DataError(f"the word {row['word']!r} is too long")
            assert "said" not in row
        self.sizes.append(len(rows))
        return Batch({}, [*rows], 0)


class Takes(ModelFamily):
    """Takes rows of any task."""

    def collate(self, processor: Any, rows: Sequence[Any]) -> Batch:
        return Batch({}, [*rows], 0)


class NoPicture:
    def open(self) -> None:
        """Open nothing."""


class Reads(ModelFamily):
    """Takes numbers, and some rows alone."""

    def __init__(self, most: int) -> None:
        self.most = most

    def collate(self, processor: Any, rows: Sequence[Any]) -> Batch:
        if len(rows) > self.most:
            raise RuntimeError("too many")
        return Batch({}, [float(row["word"]) for row in rows], 0)


GOOD = {"image": "red.png", "word": "a", "said": "b"}
BROKEN = {"image": "broken.png", "word": "a"}
LONG = {"image": "red.png", "word": "a" * 11}
GONE = {"image": "gone.png", "word": "a"}


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """Return a maker of asked rows: of those given, with the options given."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_text("no picture")

    def make(rows: list[dict[str, str]], **options: Any) -> AskedRows:
        path = tmp_path / "ask.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return AskedRows(path, Sees(), {}, 1000, **options)

    return make


def places(rows: AskedRows, family: Opens, size: int = 2) -> list[int]:
    """Return how many rows each batch has."""
    return [len(some) for some, _ in rows.batches(family, None, size)]


def test_a_family_sees_the_rows_first_and_may_warn_of_what_it_cuts(asked: Any) -> None:
    family = Opens()
    rows = [GOOD, BROKEN, GOOD | {"word": "long"}]
    assert places(asked(rows), family) == [1, 1]
    assert family.shown == ["a", "a", "long"]
    family = Opens()
    batch_of(family, None, {"image": NoPicture(), "word": "b"})
    assert family.shown == ["b"]


@pytest.mark.parametrize(
    ("rows", "batches", "words"),
    [
        pytest.param([GOOD] * 3, [2, 1], "", id="none"),
        pytest.param(
            [GOOD, BROKEN, GOOD], [1, 1], ":2: image .* is no image", id="a picture"
        ),
        pytest.param(
            [GOOD, GOOD, LONG], [2], ":3: the word .* is too long", id="a long text"
        ),
        pytest.param(
            [BROKEN, LONG, GOOD], [1], "2 of 3 rows .*\n.*:1: .*\n.*:2: ", id="two"
        ),
    ],
)
def test_what_cannot_be_answered_is_left_out_and_named_in_the_end(
    asked: Any, rows: list[dict[str, str]], batches: list[int], words: str
) -> None:
    found = asked(rows)
    assert places(found, Opens()) == batches
    assert found.num_bad == len(rows) - sum(batches)
    if words:
        with pytest.raises(DataError, match=words):
            found.settle()
    else:
        found.settle()


@pytest.mark.parametrize("target", [None, "", " ", True, 1.5, [], {}])
def test_a_target_that_cannot_be_used_costs_no_row_its_answer(
    asked: Any, target: Any
) -> None:
    found = asked([GOOD, GOOD | {"said": target}])
    assert [
        row.get("said") for rows, _ in found.batches(Opens(), None, 2) for row in rows
    ] == ["b", None]


@pytest.mark.parametrize("answers", [None, [], [""], [{"answer": ""}], "red"])
def test_nor_do_values_that_a_target_would_be_made_of(
    asked: Any, tmp_path: Path, answers: Any
) -> None:
    asked([GOOD])  # makes the picture
    path = tmp_path / "vqa.jsonl"
    row = {"image": "red.png", "question": "a", "kind": None, "answers": answers}
    path.write_text(json.dumps(row) + "\n")
    found = AskedRows(path, VQA(), {}, 1000)
    ((rows, _),) = found.batches(Takes(), None, 2)
    assert rows[0].keys() == {"image", "question", "question_id"}


@pytest.mark.parametrize("word", [None, "", True])
def test_what_the_model_reads_is_refused_as_in_training(asked: Any, word: Any) -> None:
    with pytest.raises(DataError, match=":2: word is "):
        asked([GOOD, GOOD | {"word": word}])


def test_good_rows_are_made_into_batches_once(asked: Any) -> None:
    family = Opens()
    places(asked([GOOD] * 5), family)
    assert family.sizes == [2, 2, 1]


def test_no_row_that_can_be_answered_is_an_error_at_once(asked: Any) -> None:
    found = asked([BROKEN, LONG])
    with pytest.raises(DataError, match="2 of 2 rows"):
        places(found, Opens())


FADES = """
from pathlib import Path
from training import DataError

class Fades:
    root, fingerprint, num_bytes = Path(), "", 1 << 40  # too many to be held

    def __init__(self, path: str) -> None:
        self.seen = []

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, str]:
        self.seen.append(index)
        if index == 1 and self.seen.count(1) > 1:
            raise DataError("is no JSON")
        return {"image": "red.png", "word": "a"}

    def place(self, index: int) -> str:
        return f"fades:{index + 1}"
"""


def test_a_file_that_changes_meanwhile_costs_the_rows_that_changed(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked([GOOD])  # makes the picture
    monkeypatch.chdir(tmp_path)
    Path("fades.py").write_text(FADES)
    found = AskedRows({"./fades.py:Fades": {"path": "a"}}, Sees(), {}, 1000)
    assert places(found, Opens(), size=3) == [2]
    with pytest.raises(DataError, match="fades:2: is no JSON"):
        found.settle()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([GOOD, GONE, GOOD], id="before"),
        pytest.param([GOOD, BROKEN, GOOD], id="while they are answered"),
    ],
)
def test_a_run_that_skipped_bad_rows_has_them_skipped_with_a_warning(
    asked: Any, rows: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    found = asked(rows, on_bad_row="skip", max_bad_fraction=0.4)
    with caplog.at_level(logging.WARNING):
        assert sum(places(found, Opens())) == 2
        found.settle()
    assert "1 of 3 rows" in caplog.text
    assert len(caplog.records) == 1


def test_the_share_counts_those_found_before_and_those_found_later(asked: Any) -> None:
    found = asked([GOOD, GONE, BROKEN], on_bad_row="skip", max_bad_fraction=0.4)
    assert places(found, Opens()) == [1]
    with pytest.raises(DataError, match="2 of 3 rows"):
        found.settle()


def test_without_that_a_row_that_is_bad_at_once_is_refused_before_any_is_answered(
    asked: Any,
) -> None:
    with pytest.raises(DataError, match=r":2: image 'gone.png' does not exist"):
        asked([GOOD, GONE], max_bad_fraction=1.0)


@pytest.mark.parametrize(
    ("words", "most", "kind", "place"),
    [
        pytest.param("1 2 3 x1", 9, ValueError, "ask.jsonl:4", id="that of one row"),
        pytest.param("x 2 x 3", 9, ValueError, "ask.jsonl:1, 3", id="that of two"),
        pytest.param("1 2 3 4", 2, RuntimeError, "ask.jsonl:1, 2, 3, 4", id="of none"),
        pytest.param("1 2 x 4", 2, RuntimeError, "ask.jsonl:1, 2, 3, 4", id="another"),
    ],
)
def test_what_a_family_raises_comes_with_the_places_of_the_rows_it_is_about(
    asked: Any, words: str, most: int, kind: type[Exception], place: str
) -> None:
    rows = asked([GOOD | {"word": word} for word in words.split()])
    with pytest.raises(kind) as caught:
        list(rows.batches(Reads(most), None, 4))
    (note,) = caught.value.__notes__
    assert note.startswith("while a batch was made of ")
    assert note.endswith(f"/{place}")
    assert not isinstance(caught.value, DataError)
    dataset = RowsDataset(ListedRows([*rows._held.values()]), Reads(most), None)
    with pytest.raises(kind) as told:  # and so of a run and an evaluation
        dataset.collate(range(4))
    assert told.value.__notes__ == [note]


class Tags(Task):
    fields: ClassVar = {"words": "texts", "tags": "texts"}
    target = "tags"


def asked_words(typed: str) -> dict[str, Any]:
    return asked_row(Tags(), {"words": typed}, 1, {})


def test_a_field_of_several_texts_is_asked_as_a_json_list() -> None:
    assert asked_words('["\u010cen\u011bk", "it\'s", 7]') == {
        "words": ["\u010cen\u011bk", "it's", "7"]
    }


@pytest.mark.parametrize(
    "typed", ["went", "['went']", '"went"', '{"a": 1}', "[" * 9999]
)
def test_what_is_no_list_of_texts_is_refused_with_the_way_to_write_one(
    typed: str,
) -> None:
    with pytest.raises(ConfigError, match=r"--field 'words=\[\"a\", \"b\"\]'"):
        asked_words(typed)


def test_an_empty_list_is_refused_as_in_a_file() -> None:
    with pytest.raises(DataError, match=r"--field words is \[\] .*write a list"):
        asked_words("[]")


def test_the_row_that_a_run_offers_to_try_can_be_asked(tmp_path: Path) -> None:
    words = ["it's", "\u010cen\u011bk"]
    rows = json.dumps({"words": words, "tags": ["O", "PER"]})
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    config = DataConfig(train=tmp_path / "rows.jsonl")
    offered = DataPipeline(config, task=Tags(), family=Takes()).example("train")
    assert asked_row(Tags(), offered, 1, {})["words"] == words
