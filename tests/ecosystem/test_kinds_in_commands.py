"""The commands about plugins know tasks, model families and readers, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]

SOURCE = '''
from training import Callback, ModelFamily, Task

class Parity(Task):
    """Odd or even."""

    fields = {"number": "text", "odd": "text"}
    target = "odd"
    metrics = ("accuracy",)

    def __init__(self, base: int = 10) -> None:
        """Take a base."""

    def score(self, prediction, row): ...

class Watch(Callback):
    name = "watch"

    def on_epoch_end(self) -> None: ...

class Net(ModelFamily):
    """A net."""

    tasks = ("parity",)

    def __init__(self, scale: float = 1.0) -> None: ...

    def build(self, rows, *, width: int = 8, seed: int = 0):
        """Return a fresh one.

        Args:
            width: of the hidden layer.
        """

    def collate(self, processor, rows): ...
    def predict(self, model, processor, batch): ...

class Lines:
    """Rows of lines."""

    def __len__(self): ...
    def __getitem__(self, index): ...
    def place(self, index): ...
'''
ENTRIES = """watch = lab_kinds:Watch
[trainbus.tasks]
parity = lab_kinds:Parity
half = lab_kinds:Watch
[trainbus.readers]
watch = lab_kinds:Lines
parts = lab_kinds:Lines
[trainbus.models]
parts = lab_kinds:Lines
net = lab_kinds:Net
"""


@pytest.fixture(autouse=True)
def lab(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install("lab", ENTRIES, SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the process that checks


def first_words(out: str) -> list[list[str]]:
    return [line.split()[:3] for line in out.splitlines()]


def test_the_list_has_a_column_of_kinds(command: Command) -> None:
    out = command("plugins", "list")[1]
    assert out.splitlines()[0].split()[:3] == ["name", "kind", "state"]
    assert ["parity", "task", "off"] in first_words(out)
    found = json.loads(command("plugins", "list", "--json")[1])
    kinds = {(e["name"], e["kind"]) for e in found if e["distribution"] == "lab"}
    assert kinds == {
        ("watch", "callback"),
        ("watch", "reader"),
        ("parity", "task"),
        ("half", "task"),
        ("net", "model"),
        ("parts", "model"),
        ("parts", "reader"),
    }


def test_show_tells_what_a_task_holds_and_takes(command: Command) -> None:
    code, out, _ = command("plugins", "show", "parity")
    assert code == 0
    assert out.startswith("parity: Odd or even.\n")
    assert "target        odd\n" in out
    assert "base: int  = 10" in out
    assert "hooks" not in out


def test_show_tells_what_the_build_of_a_family_takes(command: Command) -> None:
    code, out, _ = command("plugins", "show", "net")
    assert code == 0
    own, build = out.partition("  options\n")[2].split("  options below model.build\n")
    assert own.split() == ["scale:", "float", "=", "1.0"]
    assert build.splitlines() == [
        "    width: int  = 8",
        "        of the hidden layer.",
        "    seed: int  = 0",
    ]
    assert "model.build" not in command("plugins", "show", "parity")[1]


@pytest.mark.parametrize("action", ["show", "why", "check"])
def test_a_name_of_two_kinds_is_refused_until_one_is_said(
    action: str, command: Command
) -> None:
    code, _, err = command("plugins", action, "parts")
    assert code == 2
    assert "'parts' is a model and a reader; say which with --kind" in err
    assert command("plugins", action, "parts", "--kind", "reader")[0] == 0


@pytest.mark.parametrize("action", ["show", "why", "check"])
def test_a_name_that_a_callback_has_too_is_the_callbacks_until_another_is_said(
    action: str, command: Command
) -> None:
    code, out, _ = command("plugins", action, "watch")
    assert code == 0
    for kind in ("callback", "reader"):
        code, told, _ = command("plugins", action, "watch", "--kind", kind)
        assert code == 0
        assert (told == out) == (kind == "callback")


def test_check_says_what_is_wrong_with_each(command: Command) -> None:
    code, out, _ = command("plugins", "check", "parity", "half")
    assert code == 2
    assert "parity (task): good\n" in out
    assert "half (task): it lacks fields, target, score\n" in out


def test_why_and_the_list_say_what_chose_a_task(
    tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: {parity: {base: 2}}\ndata: {train: a}\n")
    out = command("plugins", "why", "parity", str(path))[1]
    assert out == f"parity (task) is active\n  on: {path}:1\n"
    assert command("plugins", "why", "parity")[1].startswith("parity (task) is off")
    out = command("plugins", "list", str(path))[1]
    assert ["parity", "task", "active"] in first_words(out)
