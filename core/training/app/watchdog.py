"""Notice a plugin that hangs: say which, and where, while it still hangs.

A thread looks at the main thread's stack now and then; the run itself pays nothing. A
thread of Python cannot be stopped from outside: all that can be done is to tell, and if
asked to, to end the process.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from training.callbacks import Callback
from training.errors import EXIT_USER_CODE

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["Watchdog"]

log = logging.getLogger(__name__)

#: Looks in the time after which a call counts as hanging.
LOOKS = 4


class Watchdog(Callback):
    """Warn with a stack trace when one call of a plugin takes very long.

    Args:
        seconds: a call that takes longer is reported, once.
        abort: end the process then, with exit code 1; the last checkpoint stays.
    """

    name = "watchdog"

    def __init__(self, seconds: float, abort: bool = False) -> None:
        self.seconds = seconds
        self.abort = abort
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def on_setup(self, trainer: Trainer) -> None:
        """Start looking."""
        self._done.clear()
        main = threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(trainer, main), name="watchdog", daemon=True
        )
        self._thread.start()

    def on_close(self) -> None:
        """Stop looking."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, trainer: Trainer, thread: int) -> None:
        # A frame that is held cannot be reused: the same frame is the same call.
        last: FrameType | None = None
        looks = 0
        while not self._done.wait(self.seconds / LOOKS):
            frame = _slot_frame(sys._current_frames().get(thread))
            looks = looks + 1 if frame is not None and frame is last else 0
            last = frame
            if frame is not None and looks == LOOKS:
                self._report(frame, trainer, sys._current_frames().get(thread))

    def _report(self, slot: FrameType, trainer: Trainer, top: FrameType | None) -> None:
        name = _plugin_on(top, trainer)
        log.warning(
            "plugin %r has been in %s for more than %g s, at step %d; this is where:",
            *(name, slot.f_code.co_name, self.seconds, trainer.step),
        )
        faulthandler.dump_traceback(all_threads=True)
        if self.abort:
            log.error("the watchdog ends the process")
            os._exit(EXIT_USER_CODE)


def _slot_frame(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the bus slot that is being called, if one is."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<bus slot "):
            return frame
        frame = frame.f_back
    return None


def _plugin_on(frame: FrameType | None, trainer: Trainer) -> str | None:
    """Return the plugin whose method is on the stack."""
    while frame is not None:
        owner: Any = frame.f_locals.get("self")
        name = None if owner is None else trainer.bus.name_of(owner)
        if name is not None:
            return name
        frame = frame.f_back
    return None
