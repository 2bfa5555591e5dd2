"""Say of an error what it is, whatever its own text does.

An exception is somebody else's class: its ``__str__`` may raise, and it may take no
notes. Who is about to close plugins or to name a culprit must get by all the same.
"""

from __future__ import annotations

import contextlib
import logging

from training.errors import TrainbusError

__all__ = [
    "add_note",
    "bug_in",
    "error_text",
    "notes_of",
    "printable",
    "repr_of",
    "shown",
    "tell",
    "text_of",
]

log = logging.getLogger(__name__)


def text_of(value: object) -> str:
    """Return ``str(value)``, or in its place that there is none."""
    try:
        return str(value)
    except BaseException as error:  # nothing that it raises is worth a run's end
        return f"<{type(value).__name__}, whose text raises {type(error).__name__}>"


def repr_of(value: object) -> str:
    """Return ``repr(value)``, or in its place that there is none."""
    try:
        return repr(value)
    except BaseException as error:
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def shown(value: object) -> str:
    """Return ``value`` as Python writes a text, cut at 60 characters."""
    text = repr(text_of(value))
    return text if len(text) <= 60 else text[:56] + "...'"


def printable(text: str) -> str:
    """Return ``text`` with an escape for whatever would steer a terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


def error_text(error: BaseException) -> str:
    """Return ``"KeyError: 'a'"``: the class and the text."""
    return f"{type(error).__name__}: {text_of(error)}"


def notes_of(error: BaseException) -> tuple[str, ...]:
    """Return the notes on ``error``."""
    try:
        return tuple(text_of(note) for note in getattr(error, "__notes__", ()))
    except BaseException:  # it keeps something else there
        return ()


def add_note(error: BaseException, note: str) -> None:
    """Write ``note`` on ``error``, once; log it where the error takes none."""
    if note in notes_of(error):
        return
    with contextlib.suppress(BaseException):
        BaseException.add_note(error, note)  # the class may have one of its own
    if note not in notes_of(error):
        log.error("%s: %s", type(error).__name__, note)


def tell(error: BaseException, note: str) -> None:
    """Write ``note`` on ``error``, or log it where Python would print neither."""
    if isinstance(error, SystemExit):  # it ends a process without a word
        log.warning("%s", note)
    else:
        add_note(error, note)


def bug_in(error: BaseException, log: logging.Logger) -> BaseException | None:
    """Return ``error`` if whoever reads of it needs its traceback, else None.

    A bug needs it. What a disk or a network did, and what an error of ours says, is all
    in the words: a log at level debug has the traceback nevertheless.
    """
    is_bug = not isinstance(error, (OSError, TrainbusError))
    return error if is_bug or log.isEnabledFor(logging.DEBUG) else None
