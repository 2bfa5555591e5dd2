"""P14, P15: what stood for a signal before a run, and a terminal that is closed."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from faults.runs import build

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, Trainer
from training.checkpoint_io import read_checkpoint
from training.run import Run
from training.signals import handlers, sigaction
from training.signals.heard import HEARD
from training.signals.sigaction import address_of

HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
EACH = pytest.mark.parametrize("number", HEARD, ids=lambda each: each.name)


class Sends(Callback):
    """Sends signals to this process at the end of step 3."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 3:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.fixture
def restored() -> Iterator[None]:
    """Give every signal the handler back that it has now."""
    former = {number: signal.getsignal(number) for number in HEARD}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@EACH
def test_p14_a_signal_that_was_ignored_stays_ignored(
    number: signal.Signals, restored: None
) -> None:
    signal.signal(number, signal.SIG_IGN)
    trainer = build(Sends(number), stop_on_sigusr1=True)
    trainer.train()
    assert trainer.step == 12
    assert not trainer.requests
    assert signal.getsignal(number) == signal.SIG_IGN


def test_p14_under_nohup_the_terminal_may_be_closed(tmp_path: Path) -> None:
    code = """
    import os, signal, sys
    from faults.runs import build
    from faults.leaving.test_signals import Sends
    trainer = build(Sends(signal.SIGHUP, signal.SIGHUP))
    trainer.train()
    print("steps", trainer.step)
    """
    done = python(code, before=["nohup"], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "steps 12\n")


@EACH
def test_p14_every_handler_of_python_is_put_back(
    number: signal.Signals, restored: None
) -> None:
    def theirs(*_: object) -> None:
        raise AssertionError("nobody sent a signal")

    for handler in (theirs, signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(number, handler)
        build(max_steps=1).train()
        assert signal.getsignal(number) == handler


@pytest.mark.parametrize("when", ["before the first run", "between two runs"])
@EACH
def test_p14_a_handler_below_python_is_there_again(
    number: signal.Signals,
    when: str,
    restored: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if when == "between two runs":
        build(max_steps=1).train()
    faulthandler.register(number, file=2)
    theirs = address_of(number)
    try:
        for _ in range(2):
            build(max_steps=1).train()
            assert address_of(number) == theirs, "or it would end this process"
            capfd.readouterr()
            os.kill(os.getpid(), number)
            assert "most recent call first" in capfd.readouterr().err
    finally:
        faulthandler.unregister(number)


def test_p14_faulthandler_writes_its_trace_while_training_too(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where a run hangs, no handler of Python is called."""
    faulthandler.register(signal.SIGUSR1, file=2)
    try:
        trainer = build(Sends(signal.SIGUSR1))
        trainer.train()
    finally:
        faulthandler.unregister(signal.SIGUSR1)
    assert "in on_step_end" in capfd.readouterr().err
    assert not trainer.requests
    assert "SIGUSR1 has a handler below Python" in caplog.text


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(TERM, 143, id="SIGTERM"), pytest.param(HUP, 129, id="SIGHUP")],
)
def test_p14_a_signal_that_stops_saves_although_it_has_a_handler_below_python(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    faulthandler.register(number, file=2)
    try:
        assert end_of(tmp_path, number) == (code, 3)
    finally:
        faulthandler.unregister(number)


def end_of(folder: Path, *numbers: signal.Signals) -> tuple[Any, int | None]:
    """Return the exit code of a run that is signalled, and the step it saved."""
    trainer = build(Sends(*numbers), ModelCheckpointCallback(folder, monitor=None))
    try:
        trainer.train()
    except SystemExit as error:
        code: Any = error.code
    except KeyboardInterrupt:
        code = 130
    else:
        code = 0
    steps = [
        torch.load(file, weights_only=True)["progress"]["step"]
        for file in folder.glob("*.pt")
    ]
    return code, max(steps, default=None)


@pytest.mark.parametrize(
    ("numbers", "code", "saved"),
    [
        pytest.param([HUP], 129, 3, id="once"),
        pytest.param([HUP, HUP], 129, 3, id="the shell tells of it, too"),
        pytest.param([HUP, TERM], 129, 3, id="and the session is ended"),
        pytest.param([TERM, HUP], 143, 3, id="the session is ended first"),
        pytest.param([HUP, TERM, HUP, INT], 130, None, id="a second of another kind"),
        pytest.param([TERM, TERM], 143, None, id="a second one is impatience"),
    ],
)
def test_p15_a_terminal_that_is_closed_saves_however_often_it_is_told(
    tmp_path: Path, numbers: list[signal.Signals], code: int, saved: int | None
) -> None:
    assert end_of(tmp_path, *numbers) == (code, saved)


def test_p15_a_closed_terminal_ends_the_process_with_129_and_it_resumes(
    tmp_path: Path,
) -> None:
    code = """
    import signal
    from faults.runs import build
    from faults.leaving.test_signals import Sends
    from trainbus_checkpointing import ModelCheckpointCallback
    build(Sends(signal.SIGHUP), ModelCheckpointCallback("saved", monitor=None)).train()
    """
    done = python(code, cwd=tmp_path)
    assert done.returncode == 129, done.stderr
    rest = build(ModelCheckpointCallback(tmp_path / "saved", monitor=None))
    (saved,) = (tmp_path / "saved").glob("*.pt")
    rest.load_checkpoint(saved)
    assert rest.step == 3


class Closes(Callback):
    """Sends signals to this process while it closes, then notes that it is closed."""

    name = "closes"
    before = ("second",)

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers, self.closed = numbers, 0

    def on_close(self) -> None:
        for number in self.numbers:
            os.kill(os.getpid(), number)
        self.closed += 1


class Second(Closes):
    name, before = "second", ()


def closed_by(*numbers: signal.Signals, fails: bool = False) -> tuple[Any, int, int]:
    """Return how a run ends that is signalled in closing, and how many were closed."""

    class Fails(Callback):
        def on_step_end(self) -> None:
            if fails:
                raise ValueError("lost")

    first, second = Closes(*numbers), Second()
    trainer = build(first, second, Fails(), max_steps=1)
    try:
        trainer.train()
    except (KeyboardInterrupt, SystemExit, ValueError) as error:
        code: Any = getattr(error, "code", type(error))
    else:
        code = 0
    return code, first.closed, second.closed


@pytest.mark.parametrize(
    ("numbers", "code", "first"),
    [
        pytest.param([TERM], 143, 1, id="SIGTERM"),
        pytest.param([INT], KeyboardInterrupt, 1, id="SIGINT"),
        pytest.param([HUP], 129, 1, id="SIGHUP"),
        pytest.param([HUP, HUP], 129, 1, id="a terminal, told of twice"),
        pytest.param([signal.SIGUSR1], 0, 1, id="SIGUSR1, where nothing is saved"),
        pytest.param([TERM, TERM], 143, 0, id="a second one cuts what is in its way"),
        pytest.param([INT, INT], KeyboardInterrupt, 0, id="a second Ctrl-C"),
    ],
)
def test_p14_a_signal_that_comes_while_plugins_close_waits_until_all_are_closed(
    numbers: list[signal.Signals], code: Any, first: int
) -> None:
    handler = signal.getsignal(numbers[0])
    assert closed_by(*numbers) == (code, first, 1)
    assert signal.getsignal(numbers[0]) == handler


def test_p14_an_error_of_the_run_stays_the_one_that_is_raised() -> None:
    assert closed_by(TERM, fails=True) == (ValueError, 1, 1)


def ends_with_ctrl_c(line: int) -> tuple[type | None, bool] | None:
    """Send SIGINT at a line of code in which a run begins or ends.

    Return what was raised, and whether all is as before; None: there is no such line.
    """
    before = [signal.getsignal(number) for number in HEARD]
    trainer, passed, is_on = build(max_steps=1), 0, False
    installs = {handlers.__file__, sigaction.__file__}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed, is_on
        if frame.f_code is Run.__call__.__code__:
            is_on = event != "return"
        elif not is_on or frame.f_code.co_filename not in installs:
            return None
        passed += event == "line"
        if event == "line" and passed == line:
            os.kill(os.getpid(), INT)
        return trace

    raised, former = None, sys.gettrace()
    sys.settrace(trace)
    try:
        trainer.train()
    except BaseException as error:
        raised = type(error)
    finally:
        sys.settrace(former)
    if passed < line:
        return None
    after = [signal.getsignal(number) for number in HEARD]
    return raised, after == before and not trainer.bus.is_in_run


def test_p14_a_ctrl_c_at_any_line_in_which_a_run_begins_or_ends_is_never_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = [*takewhile(bool, map(ends_with_ctrl_c, count(1)))]
    assert len(found) > 100, "or it tries nothing"
    assert set(found) == {(KeyboardInterrupt, True)}
    assert "outside of train()" not in caplog.text


READS = """
import os, signal
from faults.runs import build
from training import Callback

class Reads(Callback):
    hook_api = ">=1.1,<2"

    def resume_candidates(self, trainer):
        os.kill(os.getpid(), signal.SIGUSR1)
        return []

trainer = build(Reads())
trainer.train(resume="auto")
print(trainer.requests[0].kind, trainer.requests[0].step, trainer.step)
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_p14_sigusr1_while_a_checkpoint_is_looked_for_asks_the_run_that_begins(
    tmp_path: Path,
) -> None:
    ended = python(READS, cwd=tmp_path)
    assert ended.stdout == "checkpoint 0 12\n", ended.stderr
    assert ended.returncode == -signal.SIGUSR1, "what stood there is there again"


def python(
    code: str, *, before: list[str] | None = None, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with the tests' helpers on its path."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [*(before or []), sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def in_thread(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()


@pytest.mark.parametrize(
    ("where", "saves", "is_said"),
    [
        pytest.param(in_thread, True, True, id="a thread, saving"),
        pytest.param(in_thread, False, False, id="a thread, saving nothing"),
        pytest.param(lambda work: work(), True, False, id="the main thread"),
    ],
)
def test_p14_a_run_that_saves_where_no_signal_is_heard_says_so(
    where: Any, saves: bool, is_said: bool, tmp_path: Path, caplog: Any
) -> None:
    kept = [ModelCheckpointCallback(tmp_path, monitor=None)] if saves else []
    where(build(*kept).train)
    assert ("signals reach the main thread alone" in caplog.text) is is_said
    assert caplog.text.count("trainer.request_stop()") == is_said


def test_p14_a_handler_of_ones_own_ends_the_run_of_a_thread_with_a_checkpoint(
    tmp_path: Path, restored: None
) -> None:
    reached, answered = threading.Event(), threading.Event()

    class Waits(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 3:
                reached.set()
                answered.wait(60)

    def handler(number: int, frame: FrameType | None) -> None:
        trainer.request_stop(signal.Signals(number).name)
        answered.set()

    kept = ModelCheckpointCallback(tmp_path, monitor=None)
    trainer = build(Waits(), kept)
    signal.signal(TERM, handler)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(trainer.train)
        assert reached.wait(60)
        signal.raise_signal(TERM)
        run.result(60)
    assert (trainer.step, trainer.stop_reason) == (3, "SIGTERM")
    assert read_checkpoint(kept.last_path)["progress"]["step"] == 3
