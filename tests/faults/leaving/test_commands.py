"""A signal ends a command that trains nothing as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.leaving.test_forked import FORK, exit_code, told_in_runs
from faults.leaving.test_process import last_of, signalled

from training.discovery.installed import load_file
from training.discovery.specs import construct
from training.signals.handlers import Terminated
from training.signals.leaving import leaving

HUP, TERM = signal.SIGHUP, signal.SIGTERM
EACH = pytest.mark.parametrize("number", [HUP, TERM], ids=["SIGHUP", "SIGTERM"])


@pytest.fixture(autouse=True)
def no_handlers() -> Iterator[None]:
    """Let nobody stand for a signal, as in a fresh process."""
    former = {number: signal.signal(number, signal.SIG_DFL) for number in (HUP, TERM)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@EACH
def test_a_command_leaves_by_an_exception_and_nothing_stays_installed(
    number: signal.Signals,
) -> None:
    with pytest.raises(Terminated) as caught, leaving():
        send(number)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_closed_terminal_that_is_told_twice_cuts_no_clearing_up() -> None:
    cleared = []

    @contextmanager
    def clearing() -> Iterator[None]:
        try:
            yield
        finally:
            send(HUP)
            cleared.append(True)

    with pytest.raises(Terminated), leaving(), clearing():
        send(HUP)
    assert cleared


@EACH
def test_what_was_there_before_a_command_stays(number: signal.Signals) -> None:
    heard: list[int] = []
    for handler in (signal.SIG_IGN, lambda number, _: heard.append(number)):
        signal.signal(number, handler)
        with leaving():
            send(number)
            assert signal.getsignal(number) == handler
    assert heard == [number]


def test_a_command_in_another_thread_installs_nothing() -> None:
    seen = []

    def look() -> None:
        with leaving():
            seen.append(signal.getsignal(TERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_a_run_in_a_command_hears_the_signal_and_saves_first(
    tmp_path: Path,
) -> None:
    trainer = signalled(tmp_path, 3, "forward", TERM)
    with leaving():
        with pytest.raises(SystemExit) as caught:
            trainer.train()
        assert caught.value.code == 143
        assert last_of(trainer).exists()
        with pytest.raises(Terminated):  # and then the command does, again
            send(TERM)


@pytest.mark.parametrize("depth", [0, 1], ids=["a command", "a run in a command"])
def test_sigterm_ends_a_process_that_was_forked_in_a_command_as_without_one(
    depth: int,
) -> None:
    with leaving():
        assert told_in_runs(depth, exit_code) == -TERM


def test_nor_does_a_closed_terminal_raise_in_a_forked_process() -> None:
    with leaving():
        child = FORK.Process(target=send, args=[HUP])
        child.start()
        child.join()
    assert child.exitcode == -HUP


FILE = """
import os, signal

class Sends:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_plugin_in_whose_code_a_signal_comes_is_not_taken_for_broken(
    tmp_path: Path,
) -> None:
    (tmp_path / "sends.py").write_text(FILE)
    (tmp_path / "now.py").write_text(FILE + "Sends()\n")
    with pytest.raises(Terminated), leaving():
        construct(load_file(f"{tmp_path}/sends.py:Sends"), {}, "plugins")
    with pytest.raises(Terminated), leaving():
        load_file(f"{tmp_path}/now.py:Sends")
