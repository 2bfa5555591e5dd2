"""P13: whoever reads along may leave, and the terminal may be anything at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.runs import build

from trainbus_logging import ProgressBarCallback
from training.app.cli import main
from training.messages.guarded_streams import Guarded, guarded

SMALL = [
    *("--set", "data.synthetic.num_train_images=4"),
    *("--set", "data.synthetic.num_validation_images=2"),
    *("--set", "data.synthetic.folder=shapes", "--set", "data.batch_size=8"),
    *("--set", "training.num_epochs=2", "--set", "training.save_dir=out"),
    *("--set", "training.device=cpu", "--set", "plugins.lr_scheduling.warmup=1"),
]
#: Prints at every step, to both streams, and past them what libraries would log.
CHATTERS = """
import logging, sys
from training import Callback
class Chatters(Callback):
    def on_step_end(self, trainer):
        print("step", trainer.step, "\\u00e9" * 9000, flush=True)
        print("step", trainer.step, file=sys.stderr)
        logging.getLogger("theirs").warning("step %d", trainer.step)
        sys.stdout.writelines(["done\\n"])
"""
RAISES = """
from training import Callback
class Sends(Callback):
    def on_step_end(self, trainer):
        if trainer.step == 3:
            raise BrokenPipeError(32, "Broken pipe")
"""


def broken_pipe() -> Any:
    """Return what writes to a reader that has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def full() -> Any:
    return open("/dev/full", "w", encoding="utf-8")


def closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


def ascii_only() -> Any:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


class Plain:
    """A stream of ``write`` alone."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


STREAMS: dict[str, Callable[[], Any]] = {
    "a reader that has left": broken_pipe,
    "a full disk": full,
    "a closed one": closed,
    "ASCII alone": ascii_only,
    "none at all": lambda: None,
    "write alone": Plain,
}
#: Those that lose words although nobody wanted that.
LOSING = ("a full disk", "a closed one")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chatters.py").write_text(CHATTERS)
    (tmp_path / "sends.py").write_text(RAISES)
    return tmp_path


def steps_of(place: Path) -> tuple[str, int]:
    summary = json.loads((place / "out" / "summary.json").read_text())
    return summary["status"], summary["steps"]


def call(monkeypatch: pytest.MonkeyPatch, which: str, name: str, *words: str) -> int:
    """Return the exit code of a command with such a stream, which can be closed."""
    stream = STREAMS[name]()
    with monkeypatch.context() as patch:
        patch.setattr(sys, which, stream)
        code = main(words)
    if hasattr(stream, "close"):
        stream.close()  # as Python does in the end; nothing is left that could fail
    return code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "name", "code"),
    [
        ("stdout", "a reader that has left", 0),
        ("stdout", "a full disk", 1),
        ("stderr", "a reader that has left", 0),
        ("stderr", "none at all", 0),
    ],
)
def test_p13_a_run_trains_to_its_end_whatever_becomes_of_its_words(
    which: str, name: str, code: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "demo", *SMALL, "-p", "./chatters.py:Chatters")
    assert call(monkeypatch, which, name, *words) == code
    assert steps_of(place) == ("finished", 4)
    assert (place / "out" / "history.json").is_file()


@pytest.mark.slow
def test_p13_the_broken_pipe_of_a_plugin_is_its_error(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "demo", *SMALL, "-p", "./sends.py:Sends"]) == 1
    told = capsys.readouterr().err
    assert "raised by plugin 'Sends'" in told
    assert steps_of(place) == ("failed: BrokenPipeError: [Errno 32] Broken pipe", 3)


@pytest.mark.parametrize("name", STREAMS)
def test_p13_what_a_command_prints_is_lost_with_a_sentence_unless_its_reader_left(
    name: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = call(monkeypatch, "stdout", name, "plugins", "list")
    said = capsys.readouterr().err
    if name in LOSING:
        assert (code, said.count("\n")) == (1, 1)
        assert "standard output could not be written" in said
    else:
        assert (code, said) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        pytest.param("| true", 0, id="a reader that has left"),
        pytest.param("> /dev/full", 1, id="a full disk"),
        pytest.param(">&-", 0, id="closed"),
        pytest.param("2>&-", 0, id="standard error closed"),
        pytest.param(">&- 2>&- <&-", 0, id="all of them closed"),
        pytest.param("> /dev/full 2> /dev/full", 1, id="both full"),
    ],
)
def test_p13_a_process_ends_with_its_own_code(
    redirection: str, code: int, tmp_path: Path
) -> None:
    """Python's last flush would make it 120."""
    assert shell(f"plugins list {redirection}", tmp_path) == code


def shell(line: str, folder: Path) -> int:
    """Return the exit code of ``trainbus`` in a shell's pipe or redirection."""
    code = "import sys; from training.app.cli import main; sys.exit(main())"
    line = f'"$0" -c "$1" {line}; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", f"{line} > code", sys.executable, code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Exception ignored" not in done.stderr
    return int((folder / "code").read_text())


def test_p13_a_file_never_takes_the_number_of_a_stream_that_is_closed(
    place: Path,
) -> None:
    code = (
        "import os\n"
        "from training.app.cli.standard_streams import standard_streams\n"
        "with standard_streams():\n"
        "    with open('checkpoint', 'w'):\n"
        "        os.system('echo of a library; echo of a library >&2')\n"
    )
    shell = f'"{sys.executable}" -c "$1" >&- 2>&-'
    subprocess.run(["bash", "-c", shell, "bash", code], check=True)
    assert (place / "checkpoint").read_text() == ""


@pytest.mark.parametrize("name", STREAMS)
def test_progress_goes_to_any_stream(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = STREAMS[name]()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        build(ProgressBarCallback(verbose=2)).train()
    assert caplog.text == ""
    if isinstance(stream, Plain):
        assert stream.text.count("train_loss") == 2
    with contextlib.suppress(AttributeError, OSError):
        stream.close()


@pytest.mark.parametrize(
    ("encoding", "arrives"),
    [
        pytest.param("ascii", r"caf\xe9 \u4f60", id="ASCII"),
        pytest.param("latin-1", "caf\u00e9 \\u4f60", id="one byte each"),
        pytest.param("cp1251", r"caf\xe9 \u4f60", id="a code page"),
        pytest.param("utf-8", "caf\u00e9 \u4f60", id="everything"),
    ],
)
def test_what_cannot_be_encoded_arrives_as_escapes(encoding: str, arrives: str) -> None:
    bytes_ = io.BytesIO()
    stream = guarded(io.TextIOWrapper(bytes_, encoding=encoding))
    print("caf\u00e9 \u4f60", file=stream, end="", flush=True)
    assert bytes_.getvalue().decode(encoding) == arrives
    assert stream.error is None


def test_a_stream_is_guarded_once_and_stays_itself() -> None:
    inner = ascii_only()
    stream = guarded(inner)
    assert isinstance(stream, Guarded)
    assert guarded(stream) is stream
    assert stream.encoding == "ascii"
    assert stream.buffer is inner.buffer
    assert not stream.isatty()
