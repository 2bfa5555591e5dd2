"""What ``datasets`` reads: classes by name, pictures undecoded, the missing absent."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainbus_data.readers.hugging_face import HuggingFace
from training.discovery.parts import find_part
from training.errors import ConfigError, DataError

try:
    import datasets.arrow_dataset  # a mere folder "datasets" can be imported, too
except ImportError:
    datasets = None

needs_datasets = pytest.mark.skipif(
    datasets is None, reason="needs the extra: pip install 'trainbus[datasets]'"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if datasets is not None:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
        datasets.disable_progress_bars()


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def drawn() -> Any:
    """Return two rows; of the second much is missing."""
    return datasets.Dataset.from_dict(
        {
            "image": [
                {"bytes": png("red"), "path": None},
                {"bytes": png("blue"), "path": "b"},
            ],
            "question": ["007", "NA"],
            "label": [1, 0],
            "answers": [["a", "b"], None],
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "question": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["cat", "dog"]),
                "answers": datasets.List(datasets.Value("string")),
            }
        ),
    )


def saved(folder: Path) -> Path:
    drawn().save_to_disk(folder / "set")
    return folder / "set"


def parquet(folder: Path) -> Path:
    drawn().to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def arrow(folder: Path) -> Path:
    (path,) = saved(folder).glob("*.arrow")
    return path.rename(folder / "rows.arrow")


def parquets(folder: Path) -> Path:
    (folder / "shards").mkdir()
    for number in range(2):
        one = drawn().select([number])
        one.to_parquet(folder / "shards" / f"train-0000{number}-of-00002.parquet")
    return folder / "shards"


@needs_datasets
@pytest.mark.parametrize("lay", [saved, parquet, arrow, parquets])
def test_rows_are_plain_values(tmp_path, lay):
    path = lay(tmp_path)
    rows = HuggingFace(path)
    first = {"image": png("red"), "question": "007", "label": "dog",
             "answers": ["a", "b"]}  # fmt: skip
    assert len(rows) == 2
    assert rows[0] == first
    assert rows[1] == {"image": png("blue"), "question": "NA", "label": "cat"}
    assert rows[-1] == rows[1]
    assert rows.place(1) == f"{path}:#2"
    assert rows.root == (path if path.is_dir() else path.parent)
    with pytest.raises(IndexError):
        rows[2]


@needs_datasets
def test_a_row_of_no_class_lacks_the_label(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict({"label": [1, -1, 0]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    read = HuggingFace(tmp_path / "rows.parquet")
    assert list(read) == [{"label": "dog"}, {}, {"label": "cat"}]
    assert list(read.column("label")) == ["dog", None, "cat"]


@needs_datasets
def test_a_struct_of_bytes_and_path_alone_is_a_picture(tmp_path):
    stored = [{"bytes": png("red"), "path": None}, {"bytes": None, "path": "b.png"}]
    nothing = {"bytes": None, "path": None}
    table = datasets.Dataset.from_dict(
        {
            "image": [*stored, nothing, None],
            "box": [{"path": "a", "x": 1}] * 4,  # no picture
        }
    )
    table.to_parquet(tmp_path / "rows.parquet")
    assert not isinstance(table.features["image"], datasets.Image)
    rows = HuggingFace(tmp_path / "rows.parquet")
    images = [png("red"), "b.png", None, None]
    assert [row.get("image") for row in rows] == list(rows.column("image")) == images
    assert rows[0]["box"] == {"path": "a", "x": 1}


@needs_datasets
def test_pictures_with_metadata_are_rows(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(png("red"))
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "question": "what?"}'
    )
    (row,) = HuggingFace(folder)
    assert row == {"image": str(folder / "a.png"), "question": "what?"}


@needs_datasets
def test_a_fingerprint_tells_rows_and_not_their_place(tmp_path):
    prints = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        prints.add(HuggingFace(parquet(tmp_path / name)).fingerprint)
    assert len(prints) == 1
    drawn().select([1]).to_parquet(tmp_path / "less.parquet")
    assert HuggingFace(tmp_path / "less.parquet").fingerprint not in prints


@needs_datasets
def test_one_of_several_splits_is_asked_for(tmp_path):
    both = datasets.DatasetDict({"train": drawn(), "validation": drawn().select([1])})
    both.save_to_disk(tmp_path / "sets")
    assert len(HuggingFace(tmp_path / "sets", split="validation")) == 1
    for split, words in (
        (None, r"has several splits; it has train, validation: write \{hf: \{path: "),
        ("valid", r"has no split 'valid' \(did you mean 'validation'\?\); it has tra"),
    ):
        with pytest.raises(DataError, match=words):
            HuggingFace(tmp_path / "sets", split=split)


@needs_datasets
def test_a_split_of_a_single_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no splits, but split is 'train'"):
        HuggingFace(saved(tmp_path), split="train")


@needs_datasets
@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1" + 20 * b"x" + b"PAR1"], ids=["cut off", "damaged"]
)
def test_a_damaged_file_is_told_in_a_sentence_and_once(tmp_path, content, caplog):
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read by d") as caught:
        HuggingFace(path)
    assert "\n" not in str(caught.value)
    assert caplog.messages == []


@needs_datasets
def test_no_rows_are_refused(tmp_path):
    texts = drawn().remove_columns("image")  # datasets 5.0.0 writes no 0 pictures
    texts.select([]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet cannot be read by .*no data"):
        HuggingFace(tmp_path / "none.parquet")


@needs_datasets
def test_rows_travel_to_a_worker(tmp_path):
    rows = HuggingFace(parquet(tmp_path))
    assert pickle.loads(pickle.dumps(rows))[0] == rows[0]


def test_without_the_package_the_way_to_it_is_told(tmp_path, monkeypatch):
    (tmp_path / "state.json").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'trainbus\[datasets\]'"):
        HuggingFace(tmp_path)


def test_a_package_that_cannot_be_imported_is_not_said_to_be_missing(
    tmp_path, monkeypatch
):
    (tmp_path / "state.json").touch()
    (tmp_path / "datasets.py").write_text("raise ImportError('numpy is too old')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    with pytest.raises(
        ConfigError, match=r"package datasets \(numpy is too old\); run"
    ):
        HuggingFace(tmp_path)


def test_a_folder_of_the_users_that_hides_the_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "state.json").touch()
    (tmp_path / "datasets").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    (tmp_path / "datasets" / "__init__.py").touch()
    with pytest.raises(ConfigError, match=r"hides: .*datasets; rename that folder"):
        HuggingFace(tmp_path)


@pytest.mark.parametrize("name", ["jsonl", "json", "csv", "folders", "vqa_v2", "hf"])
def test_the_reader_is_announced(name):
    cls = find_part("reader", name, "data.train")
    assert cls.__module__.startswith("trainbus_data.readers.")
