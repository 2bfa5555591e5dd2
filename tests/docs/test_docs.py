"""The pages of docs/: their code runs, their links lead to files, their tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from toy import make_trainer

from training.app.cli.command_line import build_parser
from training.checkpoint_io import FORMAT, FORMAT_VERSION
from training.discovery.installed import installed
from training.discovery.parts import find_part
from training.discovery.signature import fitted
from training.layout import LAYOUT

EXAMPLES = "examples-in-python.md"
PAGES = ("checkpoint-format.md", EXAMPLES, "resuming.md", "train-your-own-data.md")
MOVING = "from-lightning-and-transformers.md"


def text_of(repository: Path, page: str) -> str:
    return (repository / "docs" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*PAGES, MOVING])
def test_the_python_blocks_run_in_an_empty_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    if page == EXAMPLES:
        pytest.importorskip("peft")  # of an extra
    monkeypatch.chdir(tmp_path)
    found = re.findall(
        r"^```python\n(.*?)^```",
        text_of(repository, page),
        re.MULTILINE | re.DOTALL,
    )
    assert found
    for source in found:
        exec(compile(source, page, "exec"), {"__name__": "page"})


def test_every_reader_in_a_configuration_has_the_options_shown(
    repository: Path,
) -> None:
    text = text_of(repository, "train-your-own-data.md")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown = [
        split for block in blocks for split in yaml.safe_load(block)["data"].values()
    ]
    shown += [
        yaml.safe_load(each)["train"] for each in re.findall(r"`(train: .*?)`", text)
    ]
    named = [pair for each in shown if isinstance(each, dict) for pair in each.items()]
    assert {name for name, _ in named} >= {"json", "csv", "vqa_v2", "hf"}
    for name, options in named:
        if isinstance(options, dict):  # and no renamed field
            cls = find_part("reader", name, "data.train")
            assert fitted(cls, options)[1] == [], (name, options)


def test_every_reader_is_in_the_table(repository: Path) -> None:
    text = text_of(repository, "train-your-own-data.md")
    ours = {i.name for i in installed("reader") if i.distribution == "trainbus"}
    in_words = {"jsonl": "JSON lines", "folders": "one folder a class"}
    assert [n for n in ours if f"{{{n}: " not in text and in_words[n] not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(repository: Path, page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(repository, page))
    assert links
    assert [each for each in links if not (repository / "docs" / each).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(repository: Path, page: str) -> None:
    shown = re.findall(r"^    trainbus ([^#\n]+)", text_of(repository, page), re.M)
    assert shown
    for line in shown:
        assert build_parser().parse_args(line.split())


def test_the_table_of_parts_is_what_a_checkpoint_holds(
    repository: Path, tmp_path: Path
) -> None:
    text = text_of(repository, "checkpoint-format.md")
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    state = torch.load(
        make_trainer().save_checkpoint(tmp_path / "a.pt"), weights_only=True
    )
    named.remove("ranks")  # of several processes alone
    assert named == list(state)
    assert set(LAYOUT) <= set(named)
    assert f"version **{FORMAT_VERSION}**" in text
    assert f'`"{FORMAT}"`' in text
    counters = re.findall(r"`(\w+)`", text.split("| `progress` |")[1].split("\n")[0])
    assert set(counters) == set(state["progress"])
