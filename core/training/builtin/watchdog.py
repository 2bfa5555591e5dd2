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
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from training.bus import wrappers
from training.bus.bus import Bus
from training.bus.slots import FILE_PREFIX
from training.checkpoint import plugin_states
from training.discovery import installed, specs
from training.errors import EXIT_USER_CODE

__all__ = ["Watchdog"]

log = logging.getLogger(__name__)

#: Looks in the time after which a call counts as hanging.
LOOKS = 4

#: A function of the kernel that calls plugins -> words from its local variables.
CALLERS: Mapping[CodeType, Callable[[Mapping[str, Any]], str]] = {
    Bus._call.__code__: lambda at: f"plugin {at['impl'].plugin_name!r} in {at['hook']}",
    wrappers.scope.__wrapped__.__code__: lambda at: (  # type: ignore[attr-defined]
        f"the wrapper of plugin {at['wrapper'].plugin_name!r} in {at['hook']}"
    ),
    specs.construct.__code__: lambda at: f"plugin {at['path']} in its constructor",
    installed.load.__code__: lambda at: f"plugin {at['info'].name!r} in its import",
    installed.load_file.__code__: lambda at: f"plugin {at['name']!r} in its import",
    plugin_states.state_of.__code__: lambda at: f"plugin {at['name']!r} in state_dict",
    plugin_states.give_state.__code__: lambda at: (
        f"plugin {at['name']!r} in load_state_dict"
    ),
}


class Watchdog:
    """Warn with a stack trace when one call of a plugin takes very long.

    Watches the thread that enters it, for as long as it is entered: imports and
    constructors, every hook and wrapper, and asking for state.

    Args:
        seconds: a call that takes longer is reported, once.
        abort: end the process then, with exit code 1; the last checkpoint stays.
    """

    def __init__(self, seconds: float, abort: bool = False) -> None:
        self.seconds = seconds
        self.abort = abort
        self._done = threading.Event()

    def __enter__(self) -> Watchdog:
        self._done.clear()
        self._thread = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self, thread: int) -> None:
        # A frame that is held cannot be reused: the same frame is the same call.
        last: FrameType | None = None
        looks = 0
        while not self._done.wait(self.seconds / LOOKS):
            frame = _calling_frame(sys._current_frames().get(thread))
            looks = looks + 1 if frame is not None and frame is last else 0
            last = frame
            if frame is not None and looks == LOOKS:
                self._report(frame)

    def _report(self, frame: FrameType) -> None:
        log.warning(
            "%s takes more than %g s%s; this is where:",
            *(_words(frame), self.seconds, _step(frame.f_locals)),
        )
        faulthandler.dump_traceback(all_threads=True)
        if self.abort:
            log.error("the watchdog ends the process")
            os._exit(EXIT_USER_CODE)


def _calling_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that calls a plugin, if there is one."""
    while frame is not None and frame.f_code not in CALLERS and not _is_slot(frame):
        frame = frame.f_back
    return frame


def _is_slot(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(FILE_PREFIX)


def _words(frame: FrameType) -> str:
    if not _is_slot(frame):
        return CALLERS[frame.f_code](frame.f_locals)
    impl = frame.f_globals["owner"].get(frame.f_lineno)
    return f"plugin {impl and impl.plugin_name!r} in {frame.f_code.co_name}"


def _step(at: Mapping[str, Any]) -> str:
    trainer = at.get("trainer") or at.get("arguments", {}).get("trainer")
    step = getattr(trainer, "step", None)  # none yet in make_strategy
    return "" if step is None else f", at step {step}"
