"""The user's guide runs as written, block after block, in one folder of real rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

MODEL = "Salesforce/blip-vqa-base"
# What "..." stands for in the guide's fragments, by the call it is written in.
ELLIPSES = {
    "trainer = Trainer(": (
        "model=model, train_dataloader=train_loader, optimizer=optimizer, "
        f"device={'cuda' if torch.cuda.is_available() else 'cpu'!r}"
    ),
    "create_trainer_from_config(": (
        f"data_config_path='config/vqa_config.yaml', model_name={MODEL!r}, "
        "num_epochs=1, save_dir='checkpoints/fragment_{block}'"
    ),
    "callbacks = [": "",
}


def python_blocks(guide: str) -> list[tuple[int, str]]:
    """Return (line number in the guide, source) of every Python block."""
    found = re.finditer(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    return [(guide[: m.start(1)].count("\n") + 1, m.group(1)) for m in found]


def runnable(source: str, block: int) -> str:
    """Fill in "..." and, where there is no GPU, put 'cpu' for 'cuda'."""
    calls = "|".join(re.escape(call) for call in ELLIPSES)
    parts = re.split(f"({calls})", source)
    for index in range(1, len(parts), 2):
        arguments = ELLIPSES[parts[index]].format(block=f"{block}_{index}")
        parts[index + 1] = re.sub(
            r"(?m)^(\s*)\.\.\.,?|\.\.\.(?=,|\))",
            lambda match, text=arguments: (
                text + ("," if "," in match[0] and text else "")
            ),
            parts[index + 1],
            count=1,
        )
    source = "".join(parts)
    if not torch.cuda.is_available():
        source = re.sub(r"'cuda(:\d+)?'", "'cpu'", source)
    return source


@pytest.fixture
def workplace(tmp_path: Path, shared_folder: Path) -> Path:
    """Return a folder with the guide's files, and a hub cache with a tiny model."""
    source = shared_folder / "data" / "easy_vqa"
    for split, count in (("train", 24), ("val", 8)):
        rows = (source / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
        target = tmp_path / "data" / f"{split}.jsonl"
        for line in rows[:count]:
            image = json.loads(line)["image"]
            (target.parent / image).parent.mkdir(parents=True, exist_ok=True)
            (target.parent / image).write_bytes((source / image).read_bytes())
        target.write_text("\n".join(rows[:count]) + "\n", encoding="utf-8")
    config = Path(__file__).parents[2] / "config" / "vqa_config.yaml"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / config.name).write_bytes(config.read_bytes())
    make_hub_cache(tmp_path / "hub", rows[:24])
    return tmp_path


def make_hub_cache(hub: Path, rows: list[str]) -> None:
    """Put a tiny model where the hub's client looks for the guide's model."""
    from trainbus_models.blip.build import build_blip

    texts = [text for row in rows for text in list(json.loads(row).values())[2:]]
    built = build_blip(texts, hidden_size=32)
    repository = hub / f"models--{MODEL.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    built["model"].save_pretrained(snapshot)
    built["processor"].save_pretrained(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_every_python_block_of_the_guide_runs(
    workplace: Path, shared_folder: Path
) -> None:
    guide = (shared_folder / "guide.md").read_text(encoding="utf-8")
    blocks = python_blocks(guide)
    assert len(blocks) == 21
    script = workplace / "guide.py"
    prelude = (
        "from trainbus_models.model_loader import load_model\n"
        f"processor = load_model({MODEL!r}, 'blip', 'vqa', 'cpu', True)['processor']\n"
    )
    script.write_text(
        prelude
        + "\n".join(
            f"print('block at line {line}', flush=True)\n{runnable(source, line)}"
            for line, source in blocks
        ),
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(workplace / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in run.stdout.split("\n") if line.startswith("block at")]
    assert run.returncode == 0, f"{told[-1:]}\n{run.stderr[-3000:]}"
    assert len(told) == len(blocks)
