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
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

from training.bus.on_stack import CALLERS, Call, Callers, plugins_on_stack
from training.discovery import installed, specs
from training.errors import EXIT_USER_CODE

log = logging.getLogger(__name__)

#: Looks in the time after which a call counts as hanging.
LOOKS = 4

#: Functions of the kernel that make plugins, beside those that call them.
MAKERS: Callers = {
    specs.construct.__code__: lambda at: (at["path"], None, "its constructor"),
    installed.load.__code__: lambda at: (at["info"].name, None, "its import"),
    installed.load_file.__code__: lambda at: (at["name"], None, "its import"),
}


class Watchdog:
    """Warn with a stack trace when one call of a plugin takes very long.

    Watches the thread that enters it, for as long as it is entered: imports and
    constructors, every hook and wrapper, and asking for state.

    Args:
        seconds: a call that takes longer is reported, once; with the stack, if it is
            the first one of that plugin, hook and function within.
        abort: end the process then, with exit code 1; the last checkpoint stays.
    """

    def __init__(self, seconds: float, abort: bool = False) -> None:
        self.seconds = seconds
        self.abort = abort
        self._done = threading.Event()
        self._shown: set[tuple[str, str, CodeType | None]] = set()

    def __enter__(self) -> Watchdog:
        self._done.clear()
        self._shown.clear()
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
            # Made anew: a room that is imported meanwhile calls plugins, too.
            callers = {**CALLERS, **MAKERS}
            inner = sys._current_frames().get(thread)
            calls = plugins_on_stack(inner, callers)
            frame, call = next(calls, (None, None))
            looks = looks + 1 if frame is not None and frame is last else 0
            last = frame
            # Not held, or all that the step has computed is kept until the next look.
            code, inner = inner and inner.f_code, None
            if frame is not None and call is not None and looks == LOOKS:
                self._report(call, _step(frame.f_locals), code)

    def _report(self, call: Call, step: str, code: CodeType | None) -> None:
        name, _, place = call
        is_again = (name, place, code) in self._shown
        self._shown.add((name, place, code))
        log.warning(
            "plugin %r in %s takes more than %g s%s; %s",
            *(name, place, self.seconds, step),
            "where is said above" if is_again else "this is where:",
        )
        if is_again:
            return  # one line: it may be so at each step
        faulthandler.dump_traceback(all_threads=True)
        if self.abort:
            log.error("the watchdog ends the process")
            os._exit(EXIT_USER_CODE)


def _step(at: Mapping[str, Any]) -> str:
    trainer = at.get("trainer") or at.get("arguments", {}).get("trainer")
    step = getattr(trainer, "step", None)  # none yet in make_strategy
    return "" if step is None else f", at step {step}"
