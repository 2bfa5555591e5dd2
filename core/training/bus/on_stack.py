"""Which plugins are being called, read off a stack of frames.

Nobody notes who is running while all goes well: a step would pay for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

import pluggy

from training.bus import wrappers
from training.bus.slots import FILE_PREFIX, call, plugin_of

#: (name, plugin, place): who is called, and in what.
Call = tuple[str, Any, str]
#: Functions of the kernel that call plugins -> the call, from their local variables.
Callers = Mapping[CodeType, Callable[[Mapping[str, Any]], Call]]


def _call(impl: pluggy.HookImpl, place: str) -> Call:
    return impl.plugin_name, plugin_of(impl), place


#: All but the slots; those of rooms above this one fill it themselves.
CALLERS: dict[CodeType, Callable[[Mapping[str, Any]], Call]] = {
    call.__code__: lambda at: _call(at["impl"], at["hook"]),
    inspect.unwrap(wrappers.scope).__code__: lambda at: _call(
        at["wrapper"], f"its wrapper of {at['hook']}"
    ),
}


def caller_of(frame: FrameType | None, plugins: Mapping[str, Any]) -> str:
    """Return which of ``plugins`` is being called in ``frame``, ``"user"`` for none."""
    for _, (name, plugin, _) in plugins_on_stack(frame):
        if plugins.get(name) is plugin:  # else another bus's, around this
            return name
    return "user"


def plugins_on_stack(
    frame: FrameType | None, callers: Callers = CALLERS
) -> Iterator[tuple[FrameType, Call]]:
    """Yield each frame that calls a plugin, and the call, from ``frame`` outwards.

    The kernel's own frames tell it, so that it does not matter how a plugin's method
    is written, nor what it called in turn.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(FILE_PREFIX):
            impl = frame.f_globals["owner"].get(frame.f_lineno)
            if impl is not None:
                yield frame, _call(impl, code.co_name)
        elif code in callers:
            yield frame, callers[code](frame.f_locals)
        frame = frame.f_back
