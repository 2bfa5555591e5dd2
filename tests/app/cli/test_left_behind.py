"""What a command leaves that a signal ends, and what the next one sweeps."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from processes import python

Command = Callable[..., tuple[int, str, str]]

#: Prints, as it is made, what stands for SIGTERM.
LOOKS = """
import signal
from training import Callback

class Looks(Callback):
    def __init__(self):
        print("SIGTERM:", signal.getsignal(signal.SIGTERM))
"""
DAY = 24 * 3600


@pytest.fixture
def model(workplace: Path, command: Command) -> str:
    """Return a checkpoint of a run."""
    assert command("run", "run.yaml")[0] == 0
    return str(next(Path("out").rglob("*.pt")))


def writing(model: str) -> dict[str, list[str]]:
    """Return what each command is given that writes ``new.*``, by the file's name."""
    return {
        "new.jsonl": [
            *("predict", "--checkpoint", model, "--device", "cpu"),
            *("--rows", "rows/val.jsonl", "--out", "new.jsonl"),
        ],
        "new.txt": [
            *("evaluate", "run.yaml", "--checkpoint", model),
            *("--predictions", "new.txt"),
        ],
        "new.html": ["report", "out", "--out", "new.html"],
        "new.safetensors": ["export", model, "new.safetensors"],
        "new": ["export", model, "new"],
    }


def test_a_command_that_a_signal_ends_leaves_no_file(
    model: str, workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, commands = set(workplace.rglob("*")), writing(model)
    for name, number in [
        ("new.jsonl", signal.SIGTERM),
        ("new.txt", signal.SIGTERM),
        ("new.html", signal.SIGHUP),
        ("new", signal.SIGTERM),
    ]:

        def send(*_: Any, number: signal.Signals = number) -> None:
            assert signal.getsignal(number) != signal.SIG_DFL  # that would end pytest
            os.kill(os.getpid(), number)

        with monkeypatch.context() as patched:
            # In place of the step that gives what was written its name.
            patched.setattr(os, "replace", send)
            code, _, err = command(*commands[name])
        assert code == 128 + number, err
        assert "Traceback" not in err
        assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "module", "step"),
    [
        pytest.param("verify-resume run.yaml", subprocess, "run", id="verify-resume"),
        pytest.param("plugins check csv", subprocess, "run", id="plugins check"),
        pytest.param(
            "plan demo --set data.synthetic.folder=new", Image.Image, "save", id="plan"
        ),
    ],
)
def test_a_command_that_a_signal_ends_leaves_no_temporary_folder(
    words: str,
    module: Any,
    step: str,
    workplace: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = workplace / "temporary"
    places.mkdir()
    made = []

    def send(*_: Any, **__: Any) -> None:
        made.extend(places.iterdir())
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(tempfile, "tempdir", str(places))
    monkeypatch.setattr(module, step, send)
    code, _, err = command(*words.split())
    assert code == 128 + signal.SIGTERM, err
    assert made
    assert not [*places.iterdir()]


ALL = "progress, csv, tensorboard, evaluation, checkpointing: {save_dir: new/a}"


@pytest.mark.parametrize(
    "watching",
    [
        pytest.param("early_stopping: {monitor: acuracy}", id="early stopping"),
        pytest.param("lr_scheduling: {type: plateau, monitor: x}", id="a schedule"),
        pytest.param("checkpointing: {monitor: x, id: best}", id="checkpoints"),
    ],
)
def test_a_run_that_is_refused_as_it_begins_leaves_no_file_and_no_folder(
    watching: str, workplace: Path, command: Command
) -> None:
    before = set(workplace.rglob("*"))
    code, _, err = command("run", "run.yaml", "--set", f"plugins=[{ALL}, {watching}]")
    assert code == 2
    assert "but this run reports: accuracy" in err
    assert set(workplace.rglob("*")) == before


def test_a_signal_is_left_to_the_system_where_a_command_trains_or_waits_for_others(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "looks.py").write_text(LOOKS)
    code, out, err = command("run", "run.yaml", "-p", "./looks.py:Looks")
    assert code == 0, err
    assert f"SIGTERM: {signal.SIG_DFL}" in out
    stood, replace = [], os.replace

    def look(*given: Any) -> None:
        stood.append(signal.getsignal(signal.SIGTERM))
        replace(*given)

    monkeypatch.setattr(os, "replace", look)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("report", "out", "--out", "new.html")[0] == 0
    assert stood == [signal.SIG_DFL]


def test_what_a_killed_command_had_written_is_swept_by_the_next_of_that_file(
    model: str, workplace: Path, command: Command
) -> None:
    gone = python("-c", "import os; print(os.getpid())").stdout.strip()
    for name in ("new.jsonl", "new.html", "new"):
        drafts = {
            "half": f"{name}.0123abcd.tmp-{gone}",
            "of another file": f"other.{name}.0123abcd.tmp-{gone}",
            "of a process that is there": f"{name}.0123abcd.tmp-1",
            "of another host's process, maybe": f"{name}.4567cdef.tmp-{gone}",
            "a user's own": f"{name}.tmp-{gone}",
        }
        for what, draft in drafts.items():
            (workplace / draft).mkdir()
            (workplace / draft / what).touch()
            then = time.time() - 2 * DAY
            if "maybe" not in what:
                os.utime(workplace / draft / what, (then, then))
            os.utime(workplace / draft, (then, then))  # as that of a folder within
        code, _, err = command(*writing(model)[name])
        assert code == 0, err
        left = {what for what, draft in drafts.items() if (workplace / draft).exists()}
        assert left == drafts.keys() - {"half"}
