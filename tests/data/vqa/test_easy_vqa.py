"""A clone of easy-VQA becomes JSON lines and images, completely or not at all."""

import json

import pytest
from PIL import Image

from trainbus_data.rows.reading import read_rows
from trainbus_data.vqa.easy_vqa import convert_easy_vqa
from training.errors import DataError

GOLDEN_IMAGES = [
    "val/images/0.png",
    "val/images/1.png",
    "val/images/12.png",
    "val/images/17.png",
]
GOLDEN_QUESTIONS = ["question 5?", "question 1?", "question 3?", "question 1?"]


@pytest.fixture
def clone(tmp_path):
    """Return a small folder laid out as the public repository is."""
    folder = tmp_path / "clone"
    for split, num_images in (("train", 18), ("test", 2)):
        part = folder / "easy_vqa" / "data" / split
        (part / "images").mkdir(parents=True)
        for number in range(num_images):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(
                part / "images" / f"{number}.png"
            )
        questions = [
            [f"question {q}?", "yes", number]
            for number in range(num_images)
            for q in range(6)
        ]
        (part / "questions.json").write_text(json.dumps(questions))
    (folder / "easy_vqa" / "data" / "answers.txt").write_text("yes\nno")
    (folder / "LICENSE").write_text("MIT")
    return folder


def convert(clone, out):
    return convert_easy_vqa(clone, out, num_train_images=12, num_validation_images=4)


def test_pictures_are_trained_on_or_held_out_with_four_questions_each(clone, tmp_path):
    out = tmp_path / "out"
    counts = convert(clone, out)
    assert counts == {"train": 12 * 4, "val": 4 * 4, "test": 2 * 6}
    splits = {}
    for split, count in counts.items():
        rows, bad = read_rows(out / f"{split}.jsonl")
        assert (len(rows), bad) == (count, [])
        splits[split] = {row.image.rpartition("/")[2] for row in rows}
        assert {path.name for path in (out / split / "images").iterdir()} == (
            splits[split]
        )
    assert not splits["val"] & splits["train"]
    for name in splits["val"]:
        original = clone / "easy_vqa/data/train/images" / name
        assert (out / "val/images" / name).read_bytes() == original.read_bytes()
    assert (out / "answers.txt").read_text() == "no\nyes\n"
    assert (out / "LICENSE").read_text() == "MIT"


def test_the_choice_is_the_one_that_the_published_figures_rest_on(clone, tmp_path):
    convert(clone, tmp_path / "out")
    rows, _ = read_rows(tmp_path / "out/val.jsonl")
    assert sorted({row.image for row in rows}) == GOLDEN_IMAGES
    assert [row.question for row in rows[:4]] == GOLDEN_QUESTIONS


def test_converting_twice_gives_the_same_files(clone, tmp_path):
    convert(clone, tmp_path / "a")
    convert(clone, tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.jsonl"):
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_with_content_is_refused_and_left_alone(clone, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        convert(clone, out)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_what_is_no_clone_is_refused_with_the_way_to_one(tmp_path):
    with pytest.raises(DataError, match=r"git clone https://github\.com/vzhou842"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(
            lambda data: (data / "train/images/3.png").unlink(),
            r"3\.png is missing",
            id="a missing image",
        ),
        pytest.param(
            lambda data: (data / "test/questions.json").write_text("[[1]]"),
            "must be",
            id="another layout",
        ),
        pytest.param(
            lambda data: (data / "test/questions.json").write_text("{"),
            "is not JSON",
            id="broken JSON",
        ),
        pytest.param(
            lambda data: (data / "train/questions.json").write_text('[["q", "a", 1]]'),
            "0 training pictures with 4 or more questions, but 16 are needed",
            id="too few pictures",
        ),
        pytest.param(
            lambda data: (data / "answers.txt").unlink(), "cannot read", id="no answers"
        ),
    ],
)
def test_a_failure_leaves_nothing_behind(clone, tmp_path, harm, message):
    harm(clone / "easy_vqa" / "data")
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match=message):
        convert(clone, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
