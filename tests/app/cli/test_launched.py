"""The command line in a process that was started together with others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.hardware.strategy import record_failure

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
    assert code == 2
    assert output.count("\n") <= 1  # the task, which is named at once
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


def test_d35_what_another_process_tells_is_marked(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    _, _, errors = command("run", "missing.yaml")
    assert errors.startswith("trainbus: rank 3: error: ")
    monkeypatch.setenv("RANK", "0")
    _, _, errors = command("run", "missing.yaml")
    assert errors.startswith("trainbus: error: ")


TALKERS = ("mine", "training.loop.loop", "training.bus.bus")
TALKS = f"""\
import logging
from training import Callback

class Talks(Callback):
    name = "talks"

    def on_step_end(self, trainer):
        pass

for name in {TALKERS}:
    logging.getLogger(name).warning("warned by %s", name)
logging.getLogger("mine").error("an error")
try:
    raise OSError("no disk")
except OSError as error:
    logging.getLogger("mine").warning("it failed", exc_info=error)
"""


@pytest.mark.parametrize(
    ("rank", "shown"),
    [
        (
            "0",
            [*(f"warned by {each}" for each in TALKERS), "an error", "it failed"],
        ),
        ("1", ["warned by training.bus.bus", "an error", "it failed"]),
    ],
)
def test_d35_of_another_process_are_shown_what_it_alone_can_say_and_no_other_warnings(
    workplace: Path, rank: str, shown: list[str]
) -> None:
    (workplace / "talks.py").write_text(TALKS)
    started = {**os.environ, "WORLD_SIZE": "2", "RANK": rank}
    errors = subprocess.run(
        [sys.executable, "-m", "training", "plan", "run.yaml", "-p", "talks.py:Talks"],
        env=started,
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    mark = "" if rank == "0" else "rank 1: "
    ours = [line for line in errors.splitlines() if line.startswith("trainbus: ")]
    told = [line for line in ours if any(each in line for each in shown)]
    levels = ["error" if each == "an error" else "warning" for each in shown]
    pairs = zip(levels, shown, strict=True)
    assert told == [f"trainbus: {mark}{level}: {each}" for level, each in pairs]
    assert ("warned by mine" in errors) == (rank == "0")
    assert "OSError: no disk" in errors


def test_d35_one_configuration_is_complained_of_once_and_reported_by_all(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        report = workplace / f"{rank}.json"
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
        code, _, errors = command("run", "run.yaml")
        assert (code, errors.count("\n")) == (2, lines)
        told = json.loads(report.read_text())["message"]
        assert "plugin 'distributed'" in told["message"]
        assert "require_alone" in told["extraInfo"]["py_callstack"]


def test_d35_the_first_failure_of_a_process_is_the_one_reported(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = workplace / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    record_failure(ValueError("first"))
    record_failure(ValueError("second"))
    assert "first" in report.read_text()
    assert "second" not in report.read_text()


def lives(monkeypatch: pytest.MonkeyPatch, job: str, restarts: int) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))


def test_d38_a_restarted_job_goes_on_where_it_saved_last(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives(monkeypatch, "ours", 0)
    _, output, _ = command("run", "run.yaml")
    assert "resumed" not in output
    lives(monkeypatch, "ours", 1)
    _, output, _ = command("run", "run.yaml")
    assert "restart 1: resumed " in output


def test_d38_a_job_that_saved_nothing_begins_as_it_did_and_says_so(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives(monkeypatch, "earlier", 0)
    command("run", "run.yaml")
    (own,) = (workplace / "out" / "checkpoints").glob("checkpoint*.pt")
    lives(monkeypatch, "ours", 2)
    code, output, _ = command("run", "run.yaml")
    assert code == 0
    assert "restart 2: this job has saved no checkpoint yet: starting afresh" in output
    lives(monkeypatch, "a third", 1)
    _, output, _ = command("run", "run.yaml", "--resume", str(own))
    assert "restart 1: resumed " in output


def test_d38_a_job_without_a_plugin_that_saves_begins_afresh(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives(monkeypatch, "ours", 1)
    code, output, _ = command("run", "run.yaml", "-p", "no:checkpointing")
    assert code == 0
    assert "saved no checkpoint yet: starting afresh" in output
