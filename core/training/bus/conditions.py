"""A hook that a plugin hears only as it is set: what nobody waits for costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pluggy

from training.bus.ranks import ENDING
from training.bus.slots import describe, plugin_of
from training.errors import PluginError
from training.messages.error_texts import error_text

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "trainbus_heard_if"

#: Hooks that have no conditions -> why.
ALWAYS_HEARD = {
    **dict.fromkeys(ENDING, "is for cleaning up and always heard; ask inside of it"),
    **dict.fromkeys(
        ("make_strategy", "resume_candidates", "plan_evaluations", "plan"),
        "is asked before a run begins, and conditions as it does; ask inside of it",
    ),
}


def heard_if(condition: Callable[[Any], object]) -> Callable[[_Method], _Method]:
    """Mark a hook of a plugin that is to be called in some of its settings only.

    An event that nobody hears costs a step nothing. ``condition(plugin)`` is asked
    once a run, as it begins, before ``on_setup``; its answer holds for all of the run.
    A plugin that joins later hears the event until then. Of several conditions each
    must hold. The mark goes where ``functools.wraps`` does: what wraps the method obeys
    it; who overrides it by a method of its own hears the event. What cleans up, or is
    asked before a run begins, has no condition: ask in it.

    >>> class Ticks(Callback):
    ...     every_n_steps = None
    ...
    ...     @heard_if(lambda self: self.every_n_steps)
    ...     def on_step_end(self, trainer): ...
    """

    def mark(method: _Method) -> _Method:
        setattr(method, _MARK, (*_conditions(method), condition))
        return method

    return mark


def condition_mistake(method: Any, hook: str) -> str:
    """Return what is wrong with a condition of a hook, ``""`` if nothing."""
    if hook in ALWAYS_HEARD and _conditions(method):
        return f"it says heard_if of {hook}, which {ALWAYS_HEARD[hook]}"
    return ""


def is_heard(impl: pluggy.HookImpl) -> bool:
    """Whether the plugin of ``impl`` wants to hear the event, as it is set now.

    Raises:
        PluginError: a condition of it cannot be asked.
    """
    plugin = plugin_of(impl)
    try:
        return all(condition(plugin) for condition in _conditions(impl.function))
    except Exception as error:
        raise PluginError(
            f"plugin {impl.plugin_name!r} ({describe(plugin)}) says heard_if of "
            f"{impl.opts['specname']}, which raises {error_text(error)}; "
            "let it read what __init__ has set"
        ) from error


def _conditions(method: Any) -> tuple[Callable[[Any], object], ...]:
    conditions: tuple[Callable[[Any], object], ...] = getattr(method, _MARK, ())
    return conditions
