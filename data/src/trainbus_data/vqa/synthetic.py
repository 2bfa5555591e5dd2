"""Pictures of shapes with questions, colors or captions, drawn from a seed.

64 x 64 pixels, one shape of 3 in one of 6 colours and 2 sizes, placed on a grid of
16-pixel cells and moved by at most one pixel. A shape, colour, size and place that is
in one training picture is in no other picture, so held-out pictures are new. Everything
is computed in whole numbers: the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainbus_data.folders import new_folder, write_rows
from training.errors import ConfigError, DataError
from training.files.named_paths import named_path

__all__ = [
    "ABOUT",
    "MAX_PICTURES",
    "Picture",
    "choose",
    "draw",
    "write_shapes",
]

SIDE = 64
CELL = 16
SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 40),
    "purple": (150, 60, 180),
    "black": (30, 30, 30),
}
#: Name -> half the side in pixels, and the cells it spans in each direction.
SIZES = {"small": (6, 1), "large": (13, 2)}
#: Raised when the same seed would draw something else; part of the folder's name.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """What one picture shows; ``x`` and ``y`` are the shape's centre in pixels."""

    shape: str
    colour: str
    size: str
    x: int
    y: int


def _pictures_of(size: str) -> list[Picture]:
    """Return every different picture of one size."""
    span = SIZES[size][1]
    starts = range(0, SIDE - span * CELL + 1, CELL)
    centres = [
        start + span * CELL // 2 + moved for start in starts for moved in (-1, 0, 1)
    ]
    return [
        Picture(shape, colour, size, x, y)
        for shape, colour, x, y in itertools.product(SHAPES, COLOURS, centres, centres)
    ]


#: Twice the rarer size: 3 shapes x 6 colours x 9 cells x 9 moves of a large one.
MAX_PICTURES = 2 * len(SHAPES) * len(COLOURS) * 9 * 9


def choose(num_pictures: int, seed: int) -> list[Picture]:
    """Return different pictures in random order, small and large in turn."""
    chance = random.Random(f"shapes {seed}")
    columns = [_pictures_of(size) for size in SIZES]
    for column in columns:
        chance.shuffle(column)
    in_turn = zip(*columns, strict=False)  # as long as the rarer size lasts
    return list(itertools.chain.from_iterable(in_turn))[:num_pictures]


def draw(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return the picture as bytes, (64, 64, 3)."""
    reach = SIZES[picture.size][0]
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    right, down = x - picture.x, y - picture.y
    inside = {
        "circle": right**2 + down**2 <= reach**2,
        "square": np.maximum(abs(right), abs(down)) <= reach - 1,
        "triangle": (down <= reach - 1) & (2 * abs(right) <= down + reach),
    }[picture.shape]
    pixels = np.full((SIDE, SIDE, 3), 240, dtype=np.uint8)
    pixels[inside] = COLOURS[picture.colour]
    return pixels


def write_shapes(
    folder: str | Path,
    num_train_images: int = 1500,
    num_validation_images: int = 400,
    seed: int = 0,
    about: str = "questions",
) -> Path:
    """Write the pictures below ``folder`` unless they are there; return where.

    The result holds ``train.jsonl``, ``val.jsonl`` and the PNG files. Its name tells
    what it holds, so that another seed or number never overwrites it.

    Args:
        folder: of all such results.
        num_train_images: pictures in ``train.jsonl``.
        num_validation_images: pictures in ``val.jsonl``.
        seed: of what is drawn.
        about: what the rows hold beside their picture, of ``ABOUT``.
    Raises:
        ConfigError: more pictures are asked for than there are different ones.
        DataError: the folder cannot be written.
    """
    total = num_train_images + num_validation_images
    if total > MAX_PICTURES:
        raise ConfigError(
            f"synthetic asks for {total} pictures, but only {MAX_PICTURES} differ; "
            "lower num_train_images or num_validation_images"
        )
    name = f"shapes-v{VERSION}-{num_train_images}-{num_validation_images}-seed{seed}"
    name += "" if about == "questions" else f"-{about}"
    out = named_path(folder) / name
    if out.is_dir() and any(out.iterdir()):
        return out  # complete: it came into being by one rename
    pictures = choose(total, seed)
    try:
        with new_folder(out) as temp:
            _write_split(temp, "train", pictures[:num_train_images], seed, about)
            _write_split(temp, "val", pictures[num_train_images:], seed, about)
    except DataError:
        # Another process of the run has drawn the very same ones meanwhile?
        if not (out.is_dir() and any(out.iterdir())):
            raise
    return out


def _write_split(
    folder: Path, split: str, pictures: list[Picture], seed: int, about: str
) -> None:
    chance = random.Random(f"{split} questions {seed}")
    (folder / split / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures):
        image = f"{split}/images/{number:05d}.png"
        Image.fromarray(draw(picture)).save(folder / image, compress_level=1)
        for told in ABOUT[about](picture, chance):
            row = {"question_id": f"{split}-{len(rows):05d}", "image": image}
            rows.append((row if "question" in told else {"image": image}) | told)
    write_rows(folder / f"{split}.jsonl", rows)


def _questions(picture: Picture, chance: random.Random) -> Iterator[dict[str, str]]:
    """Yield four; half the yes/no answers are yes."""
    others = [colour for colour in COLOURS if colour != picture.colour]
    is_so = chance.random() < 0.5
    asked = picture.colour if is_so else chance.choice(others)
    for question, answer, kind in (
        ("what color is the shape?", picture.colour, "color"),
        ("what shape is in the picture?", picture.shape, "shape"),
        ("is the shape small or large?", picture.size, "size"),
        (f"is the shape {asked}?", "yes" if is_so else "no", "yes_no"),
    ):
        yield {"question": question, "answer": answer, "kind": kind}


def _color(picture: Picture, chance: random.Random) -> Iterator[dict[str, str]]:
    yield {"label": picture.colour}


def _caption(picture: Picture, chance: random.Random) -> Iterator[dict[str, str]]:
    yield {"caption": f"a {picture.size} {picture.colour} {picture.shape}"}


#: What rows may be about -> what they hold beside their picture.
ABOUT = {"questions": _questions, "colors": _color, "captions": _caption}
