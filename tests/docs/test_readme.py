"""What the READMEs show works when it is copied, and what they claim was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from training.app.cli.command_line import build_parser
from training.app.config.load import load_config

READMES = ("README.md", "README.zh.md")
MOST_LINES = 150


def text_of(repository: Path, name: str) -> str:
    return (repository / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def row_of(text: str, first: str) -> list[str]:
    """Return the cells of the table's row that begins with ``first``."""
    (row,) = re.findall(rf"^\| {re.escape(first)}.*$", text, re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


@pytest.mark.parametrize("name", READMES)
def test_it_is_short(repository: Path, name: str) -> None:
    assert len(text_of(repository, name).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", READMES)
def test_the_python_block_runs_in_an_empty_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = blocks(text_of(repository, name), "python")
    exec(compile(source, name, "exec"), {})
    assert (tmp_path / "runs" / "readme" / "checkpoints").is_dir()


@pytest.mark.parametrize("name", [*READMES, "docs/configuration.md"])
def test_the_configuration_is_valid(
    repository: Path, tmp_path: Path, name: str
) -> None:
    (source,) = blocks(text_of(repository, name), "yaml")
    path = tmp_path / "config.yaml"
    path.write_text(source, encoding="utf-8")
    config = load_config(path)
    assert config.training.optimizer.lr == 3e-5
    assert list(config.plugins)[-1] == "checkpointing"


@pytest.mark.parametrize("name", [*READMES, "docs/configuration.md"])
def test_every_command_that_is_shown_is_understood(repository: Path, name: str) -> None:
    text = text_of(repository, name)
    shown = re.findall(
        r"^    (?:\S*trainbus|torchrun.* -m training) ([^#\n]+)", text, re.MULTILINE
    )
    assert len(shown) > 4
    for line in shown:
        assert build_parser().parse_args(line.split())


def test_what_is_said_of_others_was_measured(repository: Path) -> None:
    results = repository / "benchmarks" / "results"
    cases = json.loads((results / "semantics.json").read_text())["cases"]
    overhead = json.loads((results / "overhead.json").read_text())["plain"]
    text = text_of(repository, "README.md")
    names = ("trainbus", "lightning", "transformers", "ignite")
    said = {
        "accumulated uneven batches": ("ragged window", ("exact",)),
        "last, partial window": ("tail window", ("a whole step",)),
        "a skipped fp16 step": ("skipped step", ("no", "if fused")),
        "a NaN loss": ("NaN loss", ("no",)),
    }
    for first, (case, right) in said.items():
        told = dict(zip(names, row_of(text, first), strict=False))
        for name in names:
            assert cases[case][name]["right"] == (told[name] in right), (first, name)
    for name, cell in zip(names, row_of(text, "accumulated uneven"), strict=False):
        assert cases["ragged window"][name]["measured"].startswith(
            cell.replace(" %", "%")
        )
    assert not cases["skipped, fused"]["transformers"]["right"]
    length = f"a step of {overhead['bare loop']['us_per_step'] / 1000:.1f} ms"
    steps = dict(zip(names, row_of(text, length), strict=False))
    assert steps == {name: f"{overhead[name]['ratio']:.2f}" for name in names}
