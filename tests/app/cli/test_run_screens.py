"""The whole of what `trainbus run` shows, kept beside this file.

After a change that is meant, `WRITE_SCREENS=1 pytest` writes them; look at them then.
"""

from __future__ import annotations

import fcntl
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest

from training.app.cli import main
from training.app.cli.run_text import metric_table

SCREENS = Path(__file__).parent / "screens"
RUN = ("run", "run.yaml", "-p", "progress", "--set", "training.num_epochs=2")
HEIGHT = 60
OBSERVERS = """
from training import Callback

class First(Callback):
    name = "first_of_two_observers"

class Other(Callback):
    name = "other_of_two_observers"
"""
#: What differs from machine to machine: times, and the last digits of losses.
MASKS = {r"\d+:\d\d": "#:##", r"\d+\.\d s": "#.# s", r"(\d\.\d\d)\d\d?\b": r"\1##"}


def masked(text: str) -> str:
    for pattern, mask in MASKS.items():
        text = re.sub(pattern, mask, text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip() + "\n"


def assert_kept(name: str, text: str) -> None:
    file = SCREENS / f"{name}.txt"
    if os.environ.get("WRITE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(masked(text))
    assert masked(text) == file.read_text()


def at_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[str, bytes]:
    """Run a command at a terminal; return what stands there, and all it was sent."""
    reading, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", HEIGHT, width, 0, 0))
    sent = bytearray()

    def read() -> None:
        try:
            while data := os.read(reading, 65536):
                sent.extend(data)
        except OSError:  # as Linux says that the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8", closefd=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        code = main(arguments)
    monkeypatch.undo()
    reader.join()
    os.close(reading)
    assert code == 0, sent.decode()
    screen = pyte.Screen(width, HEIGHT)
    pyte.ByteStream(screen).feed(bytes(sent))
    return "\n".join(screen.display), bytes(sent)


def test_a_run_at_a_terminal_of_80_columns_shows(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, sent = at_terminal(80, monkeypatch, *RUN)
    assert b"preparing" in sent
    assert b"evaluating" in sent
    assert_kept("run-80", screen)


def test_without_a_terminal_there_is_a_plain_log_and_no_bar(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, err = command(*RUN)
    assert code == 0
    assert_kept("run-log", f"{out}--- on standard error\n{err}")
    checkpoint = str(next(Path("out").rglob("*.pt")))
    evaluate = "evaluate", "run.yaml", "--checkpoint", checkpoint
    assert "evaluating" not in "".join(map(str, command(*evaluate)))
    _, sent = at_terminal(80, monkeypatch, *evaluate)
    assert b"evaluating:" in sent


def test_the_first_line_does_not_wait_for_torch(workplace: Path) -> None:
    """Torch takes seconds to be imported: here nobody gets that far."""
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ImportError('not yet')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from training.app.cli import main\n"
        "sys.exit(main(['run', 'run.yaml']))\n"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"trainbus [\d.]+: vqa\n", done.stdout)


def test_a_header_with_many_plugins_breaks_between_their_names(
    workplace: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    more = ("csv", "tensorboard", "first_of_two_observers", "other_of_two_observers")
    (workplace / "mine.py").write_text(OBSERVERS)
    chosen = ("csv", "tensorboard", "./mine.py:First", "./mine.py:Other")
    words = [word for name in chosen for word in ("-p", name)]
    code, output, _ = command("run", "run.yaml", *words)
    assert code == 0
    lines = output.split("\n\n")[0].split("\n")
    start = next(n for n, line in enumerate(lines) if "plugins" in line)
    told = [lines[start][11:], lines[start + 1][11:]]
    assert all(len(line) < 80 for line in lines)
    assert lines[start + 1].startswith(" " * 11)
    assert {*more} < {*" ".join(told).split(", ")}


def test_a_floor_stands_beside_a_metric_of_its_unit() -> None:
    scores = {"accuracy": 0.9, "exact_match": 0.8, "anls": 0.7, "anls/other": 0.7}
    floors = {"guess": {"all": 0.5, "other": 0.25, "exact_match": 0.375}}
    lines = metric_table({"value": scores}, floors)[1:]
    assert [line.split()[2:] for line in lines] == [["0.5000"], ["0.3750"], [], []]
    kinds = {"guess": {"all": 0.5, "Yes/No": 0.25}}
    scores = {"accuracy/yes_no": 0.9, "accuracy/all": 0.9}
    lines = metric_table({"value": scores}, kinds)[1:]
    assert [line.split()[2:] for line in lines] == [["0.2500"], []]
    lines = metric_table({"value": {"exact_match": 0.8}}, {"guess": {"all": 0.5}})
    assert lines[-1].split() == ["exact_match", "0.8000", "0.5000"]


def test_a_table_of_metrics_tells_small_and_large_ones_apart_from_none() -> None:
    scores = {"a": 0.0, "b": 0.5, "c": 0.00123412341, "d": 4.4e30, "e": math.nan}
    floors = {"guess": {"a": 3.2e-7}}
    assert [line.split() for line in metric_table({"value": scores}, floors)[1:]] == [
        ["a", "0.0000", "3.2e-07"],
        ["b", "0.5000"],
        ["c", "0.00123412"],
        ["d", "4.4e+30"],
        ["e", "nan"],
    ]
