"""What the READMEs show works when it is copied, and what they claim was measured."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

from training.app.cli.command_line import build_parser
from training.app.config.load import load_config
from training.app.config.schema import Config, TrainingConfig
from training.app.config.sources import DEFAULT_PLUGINS
from training.builtin.defaults import DEFAULTS, IMPLIED
from training.trainer import Trainer

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


def code_lines(*files: Path) -> int:
    """Count lines without comments, docstrings and blank ones."""
    count = 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        texts = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        spaces = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
        code = {
            line
            for each in tokens
            if each.type not in (*spaces, tokenize.INDENT, tokenize.DEDENT)
            for line in range(each.start[0], each.end[0] + 1)
        }
        count += len(code - texts)
    return count


def test_the_house_is_as_large_as_it_says(repository: Path) -> None:
    kernel = repository / "core" / "training"
    apart = [repository / each / "src" for each in ("data", "models", "report")]
    places = {
        "`window.py`": [kernel / "loop" / f"{each}.py" for each in ("loop", "window")],
        "file\nof events": [kernel / "hookspecs.py"],
        "`trainer.py`": [kernel / "trainer.py"],
        "`core/training/`": kernel.rglob("*.py"),
        "configurations (`app/`) are": (kernel / "app").rglob("*.py"),
        "kit (`testing/`)": (kernel / "testing").rglob("*.py"),
        "plugins that ship": repository.glob("plugins/*/src/**/*.py"),
        "data,\nmodels and report": [f for each in apart for f in each.rglob("*.py")],
    }
    text = text_of(repository, "ARCHITECTURE.md").partition("## How large it is")[2]
    told = {}
    for words, files in places.items():
        found = re.search(re.escape(words).replace(r"\\n", r"\s") + r" ([\d,]+)", text)
        assert found is not None, words
        told[words] = int(found[1].replace(",", ""))
        assert code_lines(*files) == pytest.approx(told[words], rel=0.05), words
    for name in READMES:
        for words in ("`window.py`", "`core/training/`", "plugins that ship"):
            number = told[words] - told[words] % (1000 if told[words] > 1000 else 10)
            assert f"{number:,}" in text_of(repository, name), (name, words)


def test_what_is_not_said_is_what_the_table_of_defaults_says(repository: Path) -> None:
    table = text_of(repository, "docs/configuration.md").partition("## Defaults")[2]
    own = inspect.signature(Trainer).parameters
    training = TrainingConfig.model_validate({})
    optimizer = training.optimizer
    plugins = {name: row_of(table, f"`{name}`")[1] for name in DEFAULT_PLUGINS}
    assert own["num_epochs"].default is own["seed"].default is None
    assert row_of(table, "epochs") == ["1", str(training.num_epochs)]
    assert row_of(table, "seed")[1] == str(Config.model_fields["seed"].default)
    assert row_of(table, "optimizer")[1] == (
        f"`{optimizer.type}`, lr {optimizer.lr:g}, weight decay "
        f"{optimizer.weight_decay:g}"
    )
    folders = own["save_dir"].default, training.save_dir
    assert row_of(table, "folder") == [f"`{each}`" for each in folders]
    assert all("on " in cell and "not listed" in cell for cell in plugins.values())
    in_python = {name: row_of(table, f"`{name}`")[0] for name in DEFAULT_PLUGINS}
    on = {name for name, cell in in_python.items() if cell.startswith("on")}
    assert on == {*DEFAULTS, IMPLIED} & set(DEFAULT_PLUGINS)
