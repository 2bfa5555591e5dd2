"""Files too large to hold: indexed, read row by row, and the same batches."""

import gc
import json
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from in_file import index_rows

from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.rows.cache import cache_folder
from trainbus_data.rows.line_index import LineIndex
from training.errors import DataError
from training.feed.permutation import Permutation

BOS = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("lines")


def lines_of(index: LineIndex) -> list[tuple[int, bytes]]:
    return [(index.number_of(i), index.read(i)) for i in range(len(index))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"aa\nbb\n", [(1, b"aa"), (2, b"bb")], id="two lines"),
        pytest.param(b"aa\nbb", [(1, b"aa"), (2, b"bb")], id="no end of the last"),
        pytest.param(b"\xef\xbb\xbfaa\n", [(1, b"aa")], id="a byte order mark"),
        pytest.param(b"\n\naa\n \t\r\nbb\n\n", [(3, b"aa"), (5, b"bb")], id="blanks"),
        pytest.param(b"aa\r\nbb\r\n", [(1, b"aa\r"), (2, b"bb\r")], id="CRLF"),
        pytest.param(b"a\xe2\x80\xa8b\n", [(1, b"a\xe2\x80\xa8b")], id="U+2028"),
        pytest.param(b"", [], id="an empty file"),
        pytest.param(b"\n \n", [], id="blank lines only"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1 << 20], ids="in blocks of {}".format)
def test_the_index_finds_every_line_that_is_not_blank(
    tmp_path, monkeypatch, content, expected, block
):
    monkeypatch.setattr("trainbus_data.rows.line_index.BLOCK_BYTES", block)
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    assert lines_of(LineIndex(path)) == expected
    assert lines_of(LineIndex(path)) == expected  # now from the cache


def test_the_second_look_reads_the_index_and_not_the_file(tmp_path, monkeypatch):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"aa\nbb\n")
    LineIndex(path)
    monkeypatch.setattr("trainbus_data.rows.line_index._scan", None)
    assert len(LineIndex(path)) == 2


def test_a_changed_file_is_indexed_anew_and_refused_where_it_is_in_use(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"aa\nbb\n")
    index = LineIndex(path)
    path.write_bytes(b"aaa\nb\nc\n")
    assert len(LineIndex(path)) == 3
    with pytest.raises(DataError, match=r"f\.jsonl has changed since it was indexed"):
        index.read(0)


def test_a_damaged_index_is_made_anew_with_a_warning(tmp_path, own_cache, caplog):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"aa\nbb\n")
    LineIndex(path)
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    assert len(LineIndex(path)) == 2
    assert "cannot be read and is made anew" in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_the_next_start(
    tmp_path, own_cache, caplog
):
    own_cache.parent.parent.mkdir(parents=True, exist_ok=True)
    own_cache.parent.write_text("a file where the folder should be")
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"aa\n")
    assert len(LineIndex(path)) == 1
    assert "cannot be kept" in caplog.text


def write_rows(tmp_path: Path, texts: list[str]) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def row(number: int, image: str = "red.png") -> str:
    return json.dumps(
        {"image": image, "question": "is it red?", "answer": "yes", "n": number}
    )


def test_an_indexed_row_is_the_listed_one(rows_file, tiny):
    path = rows_file()
    listed, indexed = (
        DataPipeline({"train": str(path), "index_above_mb": limit}) for limit in (64, 0)
    )
    assert indexed.is_indexed("train")
    assert not listed.is_indexed("train")
    assert list(indexed.rows("train")) == list(listed.rows("train"))
    assert indexed.rows("train")[1:] == listed.rows("train")[1:]
    assert list(indexed.training_rows()) == listed.training_rows()
    assert indexed.num_batches("train") == listed.num_batches("train")
    pictures = [each.rows("train")[2]["image"] for each in (indexed, listed)]
    assert pictures[0].key == pictures[1].key


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_an_indexed_file_are_those_of_a_listed_one(rows_file, tiny, workers):
    path = rows_file()
    batches = []
    for limit in (64, 0):
        config = {"train": str(path), "index_above_mb": limit, "batch_size": 2}
        pipeline = DataPipeline(
            {**config, "num_workers": workers, "max_question_length": 8},
            processor=tiny["processor"],
            bos_token_id=BOS,
        )
        pipeline.setup()
        torch.manual_seed(0)
        batches.append(list(pipeline.get_train_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert one.rows == other.rows
        assert one.loss_weight == other.loss_weight
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def fingerprint(path, tiny, limit):
    pipeline = DataPipeline(
        {"train": str(path), "index_above_mb": limit},
        processor=tiny["processor"],
        bos_token_id=BOS,
    )
    pipeline.setup()
    return pipeline.get_train_dataloader().dataset.fingerprint


def test_a_fingerprint_tells_rows_apart_wherever_and_however_they_are_read(
    rows_file, tiny, tmp_path
):
    path = rows_file()
    print_of = {limit: fingerprint(path, tiny, limit) for limit in (64, 0)}
    assert print_of[64] == print_of[0]
    moved = tmp_path / "elsewhere"
    shutil.copytree(path.parent, moved)
    assert fingerprint(moved / path.name, tiny, 64) == print_of[64]
    text = (moved / path.name).read_text()
    first, rest = text.split("\n", 1)
    changed = json.dumps({**json.loads(first), "answer": "another"})
    (moved / path.name).write_text(f"{changed}\n{rest}")
    assert fingerprint(moved / path.name, tiny, 64) != print_of[64]


def test_a_bad_row_early_in_the_file_is_refused_at_once(tmp_path):
    path = write_rows(tmp_path, [row(0), "", "{"])
    with pytest.raises(DataError, match=r"train\.jsonl:3: is not JSON"):
        index_rows(path)


def test_a_bad_row_further_on_is_named_where_it_is_met(tmp_path, monkeypatch):
    monkeypatch.setattr("trainbus_data.rows.indexed_rows.NUM_CHECKED", 1)
    rows = index_rows(write_rows(tmp_path, [row(0), "", "{"]))
    assert len(rows) == 2
    with pytest.raises(DataError, match=r"train\.jsonl:3: is not JSON"):
        rows.row(1)
    with pytest.raises(IndexError):
        rows.row(2)
    assert rows[-2]["question"] == "is it red?"


def test_skip_leaves_bad_rows_out_and_keeps_the_line_numbers(tmp_path, caplog):
    path = write_rows(tmp_path, [row(0), "{", row(2), "", row(4)])
    rows = index_rows(path, on_bad_row="skip", max_bad_fraction=0.5)
    assert [rows.row(i).line for i in range(len(rows))] == [1, 3, 5]
    assert "1 of 4 rows" in caplog.text
    with pytest.raises(DataError, match=r"a share of 0\.250"):
        index_rows(path, on_bad_row="skip", max_bad_fraction=0.1)


def test_an_indexed_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        index_rows(write_rows(tmp_path, ["", " "]))


def test_a_missing_image_of_an_indexed_row_names_file_and_line(tmp_path, tiny):
    path = write_rows(tmp_path, [row(0, "no.png")])
    pipeline = DataPipeline(
        {"train": str(path), "index_above_mb": 0},
        processor=tiny["processor"],
        bos_token_id=BOS,
    )
    pipeline.setup()
    with pytest.raises(DataError, match=r"train\.jsonl:1: image 'no\.png' does not ex"):
        next(iter(pipeline.get_train_dataloader()))


def test_memory_grows_by_at_most_16_bytes_a_row(tmp_path):
    """Of what the rows and one shuffled pass hold; other threads allocate, too."""
    short = 20_000
    ours = [
        tracemalloc.Filter(True, f"*/{place}", all_frames=True)
        for place in ("trainbus_data/*.py", "training/feed/permutation.py")
    ]
    held = []
    for count in (short, 5 * short):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(row(number) + "\n" for number in range(count)))
        gc.collect()
        tracemalloc.start(8)
        rows = index_rows(path)
        order = iter(Permutation(len(rows), torch.Generator()))
        next(order)
        traces = tracemalloc.take_snapshot().filter_traces(ours).traces
        tracemalloc.stop()
        held.append(sum(trace.size for trace in traces))
    grown = held[1] - held[0] + 8 * 4 * short  # torch's 8 bytes are not traced
    assert held[1] > 8 * 5 * short, "the index is among what is counted"
    assert grown / (4 * short) <= 16.5  # a few KiB come and go with the interpreter


def test_an_index_travels_to_a_worker(tmp_path):
    rows = index_rows(write_rows(tmp_path, [row(0), row(1)]))
    rows.row(0)
    again = pickle.loads(pickle.dumps(rows))
    assert again.row(1) == rows.row(1)
    assert np.array_equal(again._reader._lines._starts, rows._reader._lines._starts)
