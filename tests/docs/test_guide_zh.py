"""The manual in Chinese runs as written, block after block, in one folder."""

from __future__ import annotations

import csv
import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drawn import questions

from training.app.cli.command_line import build_parser

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guide.zh.md").read_text(encoding="utf-8")
MODEL = "Salesforce/blip-vqa-base"
HEADINGS = [  # in the order of the guide that users know, and what came to it
    "准备",
    "快速开始",
    "回调",
    "评估器",
    "完整的例子",
    "配置",
    "高级功能",
    "插件",
    "停止与继续",
    "任务、模型与读取器",
    "多进程",
    "常见问题",
    "小结",
]
# Blocks of a form of rows, and of commands that are looked at but not run.
SHOWN = ("json", "bash")


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return (language, file named above it or "", content) of each block."""
    pattern = r"(?:^\*\*`([^`]+)`\*\*\n\n)?^```(\w+)\n(.*?)^```"
    found = re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE)
    return [(language, file, content) for file, language, content in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder that the manual takes for granted: rows and a tiny model."""
    from trainbus_models.blip.build import build_blip

    rows = questions(12)
    (tmp_path / "data").mkdir()
    for number, row in enumerate(rows):
        name = f"{number}.png"
        row.pop("image").open().save(tmp_path / "data" / name)
        row["image"] = name
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "data" / "train.jsonl").write_text("".join(lines[:16]))
    (tmp_path / "data" / "val.jsonl").write_text("".join(lines[16:]))
    with (tmp_path / "data" / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "prompt", "label"])
        writer.writerows([r["image"], r["question"], r["answer"]] for r in rows)
    # A folder of that name comes before the hub.
    built = build_blip(
        [t for r in rows for t in (r["question"], r["answer"])], hidden_size=32
    )
    built["model"].save_pretrained(tmp_path / MODEL)
    built["processor"].save_pretrained(tmp_path / MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield tmp_path
    root.handlers[:] = before
    root.setLevel(level)
    sys.modules.pop("limits", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of fp16 on a CPU, and the like
def test_every_block_of_the_chinese_manual_runs(
    folder: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    found = blocks(GUIDE)
    assert len(found) == GUIDE.count("```") / 2
    page: dict[str, Any] = {"__name__": "page"}
    for language, file, content in found:
        if file:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(content, encoding="utf-8")
        elif language == "python":
            exec(compile(content, "guide.zh.md", "exec"), page)
        elif language == "console":
            for line in content.splitlines():
                code, out, err = command(*shlex.split(line.removeprefix("$ trainbus ")))
                assert code == 0, (line, out, err)
        else:
            assert language in SHOWN, language


def test_every_command_of_the_chinese_manual_is_understood() -> None:
    shown = [content for language, _, content in blocks(GUIDE) if language == "bash"]
    lines = re.findall(r"(?:trainbus|-m training) ([^#\n]+)", "".join(shown))
    assert len(lines) > 10
    for line in lines:
        assert build_parser().parse_args(shlex.split(line))


def test_the_chinese_manual_keeps_the_guides_order() -> None:
    assert re.findall(r"^## (.+)", GUIDE, re.MULTILINE) == HEADINGS
