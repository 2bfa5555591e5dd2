"""A tiny processor, and folders of rows and pictures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainbus_models.blip.build import build_blip

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="session")
def tiny() -> Mapping[str, Any]:
    """Return a tiny BLIP and its processor, which know the rows' words."""
    texts = ["what color is this?", "is it red?", "yes", "no", *COLOURS]
    return build_blip(texts, hidden_size=16, image_size=32, num_attention_heads=2)


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of a JSON-lines file with one picture for each colour."""

    def make(rows: list[Mapping[str, Any]] | None = None, name: str = "train") -> Path:
        for colour, rgb in COLOURS.items():
            Image.new("RGB", (32, 32), rgb).save(tmp_path / f"{colour}.png")
        if rows is None:
            rows = [
                {"image": f"{c}.png", "question": "what color is this?", "answer": c}
                for c in COLOURS
            ]
        path = tmp_path / f"{name}.jsonl"
        lines = (json.dumps(row) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return make
