"""P18: what a process hears of signals that was forked while a run was on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.runs import build
from processes import python

from training import Callback, Trainer

FORK: Any = multiprocessing.get_context("fork")
TERM = signal.SIGTERM


class Does(Callback):
    """Calls a function in the first step's end, and keeps what it returns."""

    def __init__(self, what: Callable[[], Any]) -> None:
        self.what = what
        self.told: Any = None

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 1:
            self.told = self.what()


def waits() -> None:
    threading.Event().wait(120)


def exit_code(target: Callable[..., Any] = waits, *given: Any) -> int | None:
    """Return what a forked process exits with that is told to terminate."""
    child = FORK.Process(target=target, args=given, daemon=True)
    child.start()
    child.terminate()
    child.join(30)
    child.kill()
    child.join()
    code: int | None = child.exitcode
    return code


def told_in_runs(depth: int, what: Callable[[], Any]) -> Any:
    """Return what a function says that is called in a run, in that of another."""
    if not depth:
        return what()
    does = Does(lambda: told_in_runs(depth - 1, what))
    build(does, max_steps=1).train()
    return does.told


@pytest.fixture(params=["no handler", "a handler"])
def ends_with(request: pytest.FixtureRequest) -> Iterator[int]:
    """What a process exits with that SIGTERM ends without a run."""
    if request.param == "no handler":
        yield -TERM
        return
    former = signal.signal(TERM, lambda *_: os._exit(7))
    yield 7
    signal.signal(TERM, former)


@pytest.mark.parametrize("depth", [1, 2], ids=["a run", "a run in a run"])
def test_p18_sigterm_ends_a_process_that_was_forked_in_a_run_as_without_one(
    depth: int, ends_with: int
) -> None:
    assert told_in_runs(depth, exit_code) == ends_with


def test_p18_a_process_that_is_forked_for_the_whole_run_ends_with_the_interpreter(
    tmp_path: Path,
) -> None:
    code = """
    from faults.leaving.test_forked import FORK, waits
    from faults.runs import build
    from training import Callback

    class Begins(Callback):
        def on_train_begin(self):
            FORK.Process(target=waits, daemon=True).start()

    build(Begins()).train()
    """
    ended = python("-c", textwrap.dedent(code), cwd=tmp_path, timeout=60)
    assert ended.returncode == 0, ended.stderr


def at_work(begun: Any, may_end: Any) -> str:
    begun.release()
    may_end.wait()
    return "done"


def told_as_a_group(*numbers: signal.Signals) -> str:
    """Return what comes of a task whose process is told what all are told."""
    begun, may_end = FORK.Semaphore(0), FORK.Event()
    own = FORK.Queue()

    def work() -> None:
        own.put(at_work(begun, may_end))

    child = FORK.Process(target=work, daemon=True)
    child.start()
    begun.acquire()
    for number in numbers:
        os.kill(child.pid, number)
    may_end.set()
    try:
        said: str = own.get(timeout=30)
    finally:
        child.kill()
        child.join()
    return said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name
)
def test_p18_a_signal_to_a_whole_group_leaves_a_process_that_works_for_a_hook_at_work(
    number: signal.Signals,
) -> None:
    assert told_in_runs(1, lambda: told_as_a_group(number)) == "done"


def test_p18_a_run_in_a_forked_process_hears_sigterm_as_any_run() -> None:
    steps = FORK.Value("i", 0)

    def trains() -> None:
        trainer = build(Does(lambda: os.kill(os.getpid(), TERM)))
        try:
            trainer.train()
        finally:
            steps.value = trainer.step

    def begins() -> int | None:
        child = FORK.Process(target=trains)
        child.start()
        child.join()
        code: int | None = child.exitcode
        return code

    assert told_in_runs(1, begins) == 143
    assert steps.value == 1
