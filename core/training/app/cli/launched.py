"""How a command speaks in one of several processes that were started together.

The main one speaks for all. What another one alone has to tell is marked with its rank.
"""

from __future__ import annotations

import logging
import os

from training.errors import ConfigError
from training.hardware.launch import number_started, rank_started

__all__ = [
    "is_alone",
    "is_said_alone",
    "is_told_by_main",
    "launcher",
    "mark",
    "record",
    "say",
    "speaks_for_all",
]

#: Who warns of what has happened in this process, and maybe in no other.
OF_ONE_PROCESS = ("training.bus.bus", "training.builtin.watchdog")


def is_alone() -> bool:
    """Whether no other process was started with this one, which may wait for it."""
    try:
        return number_started() == 1
    except ConfigError:  # whoever trains is told
        return False


def speaks_for_all() -> bool:
    """Whether this is the main process, or the only one."""
    try:
        return number_started() == 1 or rank_started() == 0
    except ConfigError:  # whoever trains is told
        return True


def mark() -> str:
    """Return what stands before what another process than the main one tells."""
    return "" if speaks_for_all() else f"rank {rank_started()}: "


def is_said_alone(record: logging.LogRecord) -> bool:
    """Whether a record of another process than the main one is not main's as well.

    Of most warnings all have the same, so main's is read: not of errors, of exceptions
    that were caught, and of what befalls a plugin here.
    """
    is_error = record.levelno >= logging.ERROR or bool(record.exc_info)
    return is_error or record.name in OF_ONE_PROCESS


def launcher() -> str:
    """Return what stands before ``run`` where a command like this one is typed."""
    number, here = number_started(), os.environ.get("LOCAL_WORLD_SIZE", "")
    if number == 1:
        return "trainbus"
    if here == str(number):
        return f"torchrun --standalone --nproc-per-node {number} -m training"
    return "torchrun ... -m training"  # on each machine; only they know the address


def say(text: str) -> None:
    """Print what is the same in all processes, once."""
    if speaks_for_all():
        print(text, flush=True)


def record(error: BaseException) -> None:
    """Let the launcher's report tell ``error``, whatever the exit code will be."""
    if os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # Late: it imports torch, and what failed may have had no need of that.
        from training.hardware.strategy import record_failure

        record_failure(error)


def is_told_by_main(error: BaseException) -> bool:
    """Whether the main process tells the same, and the launcher's report the rest.

    A configuration is the same everywhere, and so is what is wrong with it.
    """
    has_report = bool(os.environ.get("TORCHELASTIC_ERROR_FILE"))
    return isinstance(error, ConfigError) and has_report and not speaks_for_all()
