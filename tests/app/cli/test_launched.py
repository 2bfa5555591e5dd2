"""The command line in a process that was started together with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


def files_of(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "run.yaml"],
        ["run", "demo", "--set", "training.save_dir=out"],
        ["run", "run.yaml", "--resume", "auto"],
    ],
    ids=["rows", "pictures still to be drawn", "resumed"],
)
def test_d39_processes_among_which_nobody_divides_a_run_are_refused(
    workplace: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    before = files_of(workplace)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, output, errors = command(*arguments)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    assert "2 processes were started (WORLD_SIZE)" in errors
    assert "enable the plugin 'distributed'" in errors
    assert files_of(workplace) == before


@pytest.mark.parametrize("said", ["", "1"])
def test_d39_one_process_that_a_launcher_started_trains(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    code, output, _ = command("run", "run.yaml")
    assert code == 0
    assert "stopped" in output


@pytest.mark.parametrize("said", ["two", "0", "-1", "1.0"])
def test_d39_a_number_of_processes_that_is_none_is_refused(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    code, _, errors = command("run", "run.yaml")
    assert code == 2
    assert f"WORLD_SIZE={said!r}" in errors
