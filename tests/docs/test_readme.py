"""What the README shows works when it is copied."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.app.cli.command_line import build_parser
from training.app.config.load import load_config


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_blocks_run_in_an_empty_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    found = blocks(repository, "python")
    assert len(found) == 2
    for source in found:
        exec(compile(source, "README.md", "exec"), namespace)
    assert (tmp_path / "runs" / "readme" / "checkpoints").is_dir()


def test_the_configuration_is_valid(repository: Path, tmp_path: Path) -> None:
    (source,) = blocks(repository, "yaml")
    path = tmp_path / "config.yaml"
    path.write_text(source, encoding="utf-8")
    config = load_config(path)
    assert config.training.optimizer.lr == 3e-5
    assert list(config.plugins)[-1] == "checkpointing"


def test_every_file_that_is_linked_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "//" not in link]
    assert links
    assert [link for link in links if not (repository / link).exists()] == []


@pytest.mark.parametrize(
    "line",
    [
        "run demo",
        "plan demo",
        "check demo",
        "run config/easy_vqa.yaml --set data.root=x -p tensorboard -p no:csv",
        "evaluate c.yaml --checkpoint a.pt --split test --predictions p.jsonl",
        "predict --checkpoint a.pt --image i.png --question what?",
        "predict --checkpoint a.pt --rows ask.csv --out said.jsonl",
        "run demo --resume auto",
        "verify-resume demo",
        "export a.pt weights.safetensors",
        "plugins list",
        "plugins why csv",
        "config schema",
        "data convert easy-vqa clone out",
    ],
)
def test_every_command_that_is_shown_is_understood(line: str) -> None:
    assert build_parser().parse_args(line.split())
