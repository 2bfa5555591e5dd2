"""Turn signals that end or save a run into requests that the next boundary grants."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from training.errors import TrainbusError
from training.signals.forks import restored_in_forks
from training.signals.heard import HANGING_UP, HEARD, SAVING, STOPPING
from training.signals.holding import was_noted

if TYPE_CHECKING:
    from training.signals.sigaction import PreviousHandler

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], None]

_SECOND = "_trainbus_is_second_signal"


class Terminated(SystemExit):
    """The run leaves for a signal; a SystemExit of another class is somebody's own."""

    def __init__(self, number: signal.Signals) -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)


def are_delivered() -> bool:
    """Whether Python hands signals to this thread: to the main one alone it does."""
    return threading.current_thread() is threading.main_thread()


def warn_of_unheard() -> None:
    """Warn of a run that keeps checkpoints and hears no signal to save another one."""
    if not are_delivered():
        log.warning(
            "train() was called in thread %r, and signals reach the main thread alone: "
            "none (SIGTERM, Ctrl-C, SIGUSR1) saves a checkpoint of this run; train in "
            "the main thread, or install handlers there that call "
            "trainer.request_stop() or trainer.request_checkpoint()",
            threading.current_thread().name,
        )


@contextmanager
def handled(
    on_stop: Callable[[signal.Signals], None],
    on_save: Callable[[signal.Signals], None] | None,
    has_launcher: bool = False,
) -> Iterator[None]:
    """Install handlers inside the block; put the former ones back after.

    The first SIGTERM, SIGINT or SIGHUP calls ``on_stop``; a second one but SIGHUP
    leaves at once, as if no handler were there: files that are complete stay valid.
    SIGUSR1 calls ``on_save``, or where that is None is one more signal that stops. A
    handler that somebody else installed is called as well; one below Python cannot be,
    so it gives way to a signal that stops, and keeps SIGUSR1 to itself. What was
    ignored before stays ignored. Where none are delivered nothing is installed.

    A process that is forked inside the block inherits the handlers but that of SIGTERM,
    by which ``multiprocessing`` ends its own. The others come from a terminal or a
    cluster that tells everybody: a first one leaves it at work, for which a hook may be
    waiting.

    Args:
        on_stop: called with the signal that ends the run.
        on_save: called with each that asks for a checkpoint, or None.
        has_launcher: whether who started the process passes on what it is told. A
            cluster tells every process of a job, so that each hears it twice: then only
            a third one leaves at once.
    """
    if not are_delivered():
        yield
        return
    former: dict[int, PreviousHandler] = {}
    heard: list[signal.Signals] = []

    def chain(number: int, frame: FrameType | None) -> None:
        handler = former[number].handler if number in former else None
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number)
        counts_as_second = name not in HANGING_UP
        is_echo = has_launcher and heard == [name]
        if counts_as_second and not is_echo and set(heard) - set(HANGING_UP):
            log.warning("%s again: leaving at once", name.name)
            raise _as_second_signal(interruption(name))
        heard.append(name)
        if len(heard) == 1:
            on_stop(name)
        chain(number, frame)

    def save(number: int, frame: FrameType | None) -> None:
        assert on_save is not None
        on_save(signal.Signals(number))
        chain(number, frame)

    usr1 = stop if on_save is None else save
    handlers = {**dict.fromkeys(STOPPING, stop), **dict.fromkeys(SAVING, usr1)}
    try:
        _install(handlers, former, gives_way=save)
        with restored_in_forks(former.get(signal.SIGTERM)):
            yield
    finally:
        # No signal that still comes is a second one, which would raise and leave
        # handlers behind. Nor is a Ctrl-C, until the last is put back: its own.
        heard.clear()
        for each in reversed(former.values()):
            each.put_back()


def _install(
    handlers: Mapping[signal.Signals, Handler],
    former: dict[int, PreviousHandler],
    gives_way: Handler,
) -> None:
    """Install ``handlers``, and put into ``former`` at once what each has replaced."""
    # Here, since it loads ctypes: 5 ms that a command without a run need not pay.
    from training.signals.sigaction import PreviousHandler, is_ignored

    for number, handler in handlers.items():
        if is_ignored(number):
            continue
        former[number] = PreviousHandler(number, handler)
        if former[number].is_below_python and handler is gives_way:
            former.pop(number).put_back()
            log.warning(
                "%s has a handler below Python, such as faulthandler's; it stays, "
                "and the signal asks for no checkpoint",
                number.name,
            )
        elif was_noted(former[number].handler, number):
            handler(number, None)


def interruption(number: signal.Signals) -> BaseException:
    """Return what to raise for a signal: exit code 130 for SIGINT, 128 + n else."""
    if number == signal.SIGINT:
        error = KeyboardInterrupt("interrupted")
        # A subclass would change Python's exit code, and other processes ask for it.
        setattr(error, "exit_code", 128 + number)  # noqa: B010
        return error
    return Terminated(number)


def signal_of(error: BaseException) -> signal.Signals | None:
    """Return the signal that ``error`` leaves for, raised here or told by a process."""
    if not isinstance(error, (Terminated, KeyboardInterrupt, TrainbusError)):
        return None
    codes = {128 + number: number for number in HEARD}
    return codes.get(getattr(error, "exit_code", 0))


def is_second_signal(error: BaseException | None) -> bool:
    """Whether a second signal raised it: whoever is told of it waits for nothing.

    What ends a run after its last checkpoint is of the same type, and is none.
    """
    return getattr(error, _SECOND, False)


def _as_second_signal(error: BaseException) -> BaseException:
    setattr(error, _SECOND, True)  # a subclass would change Python's exit code
    return error
