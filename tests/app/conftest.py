"""A working directory with four pictures, their rows, and a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

COLOURS = ("red", "green", "blue", "white")
CONFIG = """\
data: {train: rows/train.jsonl, validation: rows/val.jsonl, batch_size: 2}
model:
  build: {hidden_size: 16, image_size: 32, patch_size: 16, num_attention_heads: 2}
training:
  num_epochs: 1
  save_dir: out
  device: cpu
plugins:
  - evaluation
  - checkpointing: {monitor: accuracy, mode: max}
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a fresh working directory with ``rows/`` and ``run.yaml``."""
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = []
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(rows / f"{colour}.png")
        row = {"image": f"{colour}.png", "question": "what color?", "answer": colour}
        lines.append(json.dumps(row) + "\n")
    for split in ("train", "val"):
        (rows / f"{split}.jsonl").write_text("".join(lines))
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path
