"""The manual says what the code does: made from it, or run by a test."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training import hookspecs
from training.app.cli.command_line import build_parser
from training.app.cli.parser import Commands
from training.app.config.guide_keys import GUIDE_KEYS
from training.app.config.schema import Config
from training.discovery.specs import PluginSpec
from training.hookspecs import HOOKS
from training.testing import (
    CHECKS,
    assert_no_waits,
    assert_plugin_conforms,
    run_events,
    tiny_trainer,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)  # as where it is run as a script
        spec.loader.exec_module(module)
    return dict(module.PAGES)


@pytest.mark.parametrize("name", ["hooks.md", "reference.md", "shipped-plugins.md"])
def test_a_page_made_from_the_code_is_up_to_date(
    name: str, pages: dict[str, Any]
) -> None:
    told = (DOCS / name).read_text(encoding="utf-8")
    assert told == pages[name](), "run: make docs"


def test_every_key_of_a_configuration_is_in_the_manual() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    schema = Config.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    sections.remove(schema["$defs"][PluginSpec.__name__])  # a file lists plugins
    keys = [key for section in sections for key in section["properties"]]
    assert [key for key in keys if f"| `{key}` |" not in text] == []
    assert [key for key in GUIDE_KEYS if f" {key}: " not in text] == []


def arguments(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, str]]:
    """Yield each command with each of its arguments, as the help has them."""
    for action in parser._actions:
        if isinstance(action, Commands):
            for word, each in action.choices.items():
                yield from arguments(each, f"{name} {word}")
        else:
            for shown in action.option_strings or [str(action.metavar)]:
                yield name, shown


def test_every_argument_of_every_command_is_in_the_manual() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8").replace("\\|", "|")
    missing = [
        (command, argument)
        for command, argument in arguments(build_parser(), "trainbus")
        if argument not in ("-h", "--help", "--version")
        and f"`{argument}"
        not in text.partition(f"### {command}\n")[2].partition("##")[0]
    ]
    assert missing == []


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_in_the_manual_with_its_exact_arguments(hook: str) -> None:
    text = (DOCS / "hooks.md").read_text(encoding="utf-8")
    section = text.partition(f"## {hook}\n")[2].partition("\n## ")[0]
    signature = re.search(rf"`{hook}\((.*)\)`", section)
    assert signature is not None
    arguments = re.findall(r"(\w+): (?:[^,\[]|\[[^\]]*\])+", signature[1])
    assert arguments == list(inspect.signature(getattr(hookspecs, hook)).parameters)
    for label in ("State", "Returns", "Order", "Errors"):
        assert f"**{label}:**" in section


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return (language, file named above it or "", content) of each block."""
    pattern = r"(?:\*\*`([^`]+)`\*\*\n\n)?```(\w+)\n(.*?)```"
    found = re.findall(pattern, text, flags=re.DOTALL)
    return [(language, file, content) for file, language, content in found]


@pytest.mark.slow
def test_every_block_of_writing_a_plugin_does_what_it_says(
    environment: Any, tmp_path: Path
) -> None:
    text = (DOCS / "writing-a-plugin.md").read_text(encoding="utf-8")
    folder, place = tmp_path, tmp_path / "place"
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    found = blocks(text)
    assert len(found) == text.count("```") / 2
    for language, file, content in found:
        if language != "console":
            assert file, content
            (folder / file).write_text(content, encoding="utf-8")
            continue
        for step in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
            command, *expected = step.splitlines()
            done = subprocess.run(
                ["bash", "-c", f"{command} 2>&1; code=$?; pwd > {place}; exit $code"],
                cwd=folder,
                env=environment.variables(**offline),
                capture_output=True,
                text=True,
                check=False,
            )
            is_refused = any("trainbus: error" in line for line in expected)
            assert done.returncode == (2 if is_refused else 0), done.stdout
            for line in expected:
                assert line in done.stdout, done.stdout
            folder = Path(place.read_text().strip())


def test_the_manual_names_each_argument_and_check_of_the_kit() -> None:
    text = (DOCS / "writing-a-plugin.md").read_text(encoding="utf-8")
    _, _, part = text.partition("\n## What the kit takes\n")
    told, _, _ = part.partition("\n## ")
    for function in (assert_plugin_conforms, tiny_trainer, run_events, assert_no_waits):
        rows = [row for row in told.splitlines() if f"| `{function.__name__}(" in row]
        assert len(rows) == 1
        for argument in inspect.signature(function).parameters.values():
            name, default = argument.name, argument.default
            if argument.kind is argument.VAR_KEYWORD or name == "callbacks":
                continue  # told as "others", or by what they are
            is_told = isinstance(default, (int, tuple))
            assert (f"{name}={default!r}" if is_told else f"{name}") in told
    assert all(f"`{name}`" in told for name in CHECKS)
