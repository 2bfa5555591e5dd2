"""A signal ends a command that writes and trains nothing as Ctrl-C does."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.leaving.test_forked import FORK, exit_code

from training.discovery.installed import load_file
from training.discovery.specs import construct
from training.signals.handlers import Terminated
from training.signals.leaving import leaving
from training.signals.sigaction import address_of

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


@contextmanager
def clearing_up(then: signal.Signals, cleared: list[bool]) -> Iterator[None]:
    try:
        yield
    finally:
        send(then)
        cleared.append(True)


@pytest.mark.parametrize(
    ("first", "then"), [(HUP, HUP), (HUP, TERM), (TERM, HUP)], ids=str
)
def test_a_closed_terminal_that_is_told_twice_or_another_way_cuts_no_clearing_up(
    first: signal.Signals, then: signal.Signals
) -> None:
    cleared: list[bool] = []
    with pytest.raises(Terminated) as caught, leaving(), clearing_up(then, cleared):
        send(first)
    assert cleared
    assert caught.value.exit_code == 128 + first


def test_who_insists_leaves_what_is_being_cleared_up() -> None:
    cleared: list[bool] = []
    with pytest.raises(Terminated), leaving(), clearing_up(TERM, cleared):
        send(TERM)
    assert not cleared


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


def test_a_handler_below_python_is_there_in_a_command_and_after_it() -> None:
    faulthandler.register(TERM)
    try:
        theirs = address_of(TERM)
        with leaving():
            assert address_of(TERM) == theirs
        assert address_of(TERM) == theirs
    finally:
        faulthandler.unregister(TERM)


def test_sigterm_ends_a_process_that_was_forked_in_a_command_as_without_one() -> None:
    with leaving():
        assert exit_code() == -TERM


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
