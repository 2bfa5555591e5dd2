"""The drawn shapes: the same from the same seed, and nothing held out is trained on."""

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from trainbus_data.data_pipeline import DataPipeline
from trainbus_data.rows.reading import read_rows
from trainbus_data.vqa.synthetic import (
    COLOURS,
    MAX_PICTURES,
    Picture,
    choose,
    draw,
    write_shapes,
)
from trainbus_data.vqa.task import VQA
from training.errors import ConfigError


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes"), 120, 40, seed=3)


def digest(folder) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = hashlib.sha256()
    for path in files:
        whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def pictures(folder, split):
    return [Image.open(p).tobytes() for p in sorted(folder.glob(f"{split}/images/*"))]


def test_the_same_seed_draws_the_same_and_another_seed_another(shapes, tmp_path):
    assert digest(write_shapes(tmp_path / "a", 120, 40, seed=3)) == digest(shapes)
    assert digest(write_shapes(tmp_path / "a", 120, 40, seed=4)) != digest(shapes)


def test_a_second_call_writes_nothing(shapes):
    before = shapes.stat().st_mtime_ns
    assert write_shapes(shapes.parent, 120, 40, seed=3) == shapes
    assert shapes.stat().st_mtime_ns == before


def test_no_held_out_picture_is_a_training_picture(shapes):
    train, held_out = pictures(shapes, "train"), pictures(shapes, "val")
    assert (len(train), len(held_out)) == (120, 40)
    assert len(set(train + held_out)) == 160


def test_every_picture_has_four_questions_and_sizes_are_balanced(shapes):
    rows, bad = read_rows(shapes / "train.jsonl")
    assert bad == []
    assert Counter(row.kind for row in rows) == dict.fromkeys(
        ("color", "shape", "size", "yes_no"), 120
    )
    assert Counter(row.answer for row in rows if row.kind == "size") == {
        "small": 60,
        "large": 60,
    }


def test_the_question_alone_does_not_give_the_answer(shapes):
    numbers = {"num_train_images": 120, "num_validation_images": 40, "seed": 3}
    pipeline = DataPipeline({"synthetic": numbers}, folder=shapes.parent)
    floors = VQA().floors(pipeline.rows("train"), pipeline.rows("validation"))
    assert floors["question_only"]["all"] < 0.5


def test_all_pictures_differ_and_stay_inside_their_frame():
    seen = set()
    for shape, size in itertools.product(
        ("circle", "square", "triangle"), ("small", "large")
    ):
        pixels = draw(Picture(shape, "red", size, 32, 31))
        seen.add(pixels.tobytes())
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 240).all()
        assert (pixels == COLOURS["red"]).all(axis=-1).sum() > 50
    assert len(seen) == 6


def test_more_pictures_than_there_are_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"only {MAX_PICTURES} differ"):
        write_shapes(tmp_path, MAX_PICTURES, 1)
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_a_folder():
    with pytest.raises(ConfigError, match=r"synthetic\.folder is null"):
        DataPipeline({"synthetic": {}}).rows("train")


@pytest.mark.parametrize(
    ("about", "name", "told"),
    [
        ("colors", "label", lambda p: p.colour),
        ("captions", "caption", lambda p: f"a {p.size} {p.colour} {p.shape}"),
    ],
)
def test_rows_may_be_about_colors_or_captions(about, name, told, shapes, tmp_path):
    out = write_shapes(tmp_path, 120, 40, seed=3, about=about)
    assert out.name == f"{shapes.name}-{about}"
    assert pictures(out, "train") == pictures(shapes, "train")
    lines = (out / "train.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [told(picture) for picture in choose(160, 3)[:120]]
    assert [json.loads(line)[name] for line in lines] == expected
    assert json.loads(lines[0]).keys() == {"image", name}
