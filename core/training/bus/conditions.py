"""A hook that a plugin hears only as it is set: what nobody waits for costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pluggy

from training.bus.registration import TEARDOWN
from training.bus.slots import describe, plugin_of
from training.errors import PluginError

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "trainbus_heard_if"


def heard_if(condition: Callable[[Any], object]) -> Callable[[_Method], _Method]:
    """Mark a hook of a plugin that is to be called in some of its settings only.

    An event that nobody hears costs a step nothing. ``condition(plugin)`` is asked
    once a run, as it begins, before ``on_setup``; its answer holds for all of the run.
    A plugin that joins later hears the event until then. Who overrides the method
    hears it. ``on_exception`` and ``on_close`` are always heard: ask in them.

    >>> class Ticks(Callback):
    ...     every_n_steps = None
    ...
    ...     @heard_if(lambda self: self.every_n_steps)
    ...     def on_step_end(self, trainer): ...
    """

    def mark(method: _Method) -> _Method:
        # With the method: ``functools.wraps`` copies the mark to what calls it.
        setattr(method, _MARK, (method, condition))
        return method

    return mark


def is_heard(impl: pluggy.HookImpl) -> bool:
    """Whether the plugin of ``impl`` wants to hear the event, as it is set now.

    Raises:
        PluginError: its condition cannot be asked, or it is for cleaning up.
    """
    marked: Any = getattr(impl.function, _MARK, (None, None))
    function, condition = marked
    if function is not getattr(impl.function, "__func__", impl.function):
        return True
    if impl.opts["specname"] in TEARDOWN:
        raise _mistake(impl, "is for cleaning up and always heard; ask inside of it")
    try:
        return bool(condition(plugin_of(impl)))
    except Exception as error:
        why = f"raises {type(error).__name__}: {error}"
        raise _mistake(impl, f"{why}; let it read what __init__ has set") from error


def _mistake(impl: pluggy.HookImpl, why: str) -> PluginError:
    who = f"plugin {impl.plugin_name!r} ({describe(plugin_of(impl))})"
    return PluginError(f"{who} says heard_if of {impl.opts['specname']}, which {why}")
