"""What a command leaves that a signal ends, and what the next one sweeps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import python

Command = Callable[..., tuple[int, str, str]]

#: Sends a signal in place of the step that gives what was written its name.
SIGNALLED = """
import os, signal, sys
from training.app.cli import main
os.replace = lambda *_: os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


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


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("new.jsonl", signal.SIGTERM),
        ("new.txt", signal.SIGTERM),
        ("new.html", signal.SIGHUP),
        ("new", signal.SIGTERM),
    ],
)
def test_a_command_that_a_signal_ends_leaves_no_file(
    model: str, workplace: Path, name: str, number: signal.Signals
) -> None:
    before = set(workplace.rglob("*"))
    given = map(str, (int(number), *writing(model)[name]))
    ended = python("-c", SIGNALLED, *given, cwd=workplace)
    assert ended.returncode == 128 + number, ended.stderr
    assert "Traceback" not in ended.stderr
    assert set(workplace.rglob("*")) == before


@pytest.mark.parametrize("name", ["new.jsonl", "new.html", "new"])
def test_what_a_killed_command_had_written_is_swept_by_the_next_of_that_file(
    model: str, workplace: Path, command: Command, name: str
) -> None:
    gone = python("-c", "import os; print(os.getpid())").stdout.strip()
    draft = workplace / f"{name}.0123abcd.tmp-{gone}"
    others = [
        workplace / f"other.{name}.0123abcd.tmp-{gone}",
        workplace / f"{name}.0123abcd.tmp-1",  # of a process that is there
    ]
    for folder in [draft, *others]:
        folder.mkdir()
        (folder / "half").write_text("of it")
    code, _, err = command(*writing(model)[name])
    assert code == 0, err
    assert not draft.exists()
    assert all(other.exists() for other in others)
