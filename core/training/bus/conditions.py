"""A hook that a plugin hears only as it is set: what nobody waits for costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])
_CONDITION = "trainbus_heard_if"


def heard_if(condition: Callable[[Any], object]) -> Callable[[_Method], _Method]:
    """Mark a hook of a plugin that is to be called in some of its settings only.

    An event that nobody hears costs a step nothing. ``condition(plugin)`` is asked
    when a plugin is registered or taken out, and when a run begins: what is changed
    after that counts from the next run on. Who overrides the method hears the event.

    >>> class Ticks(Callback):
    ...     every_n_steps = None
    ...
    ...     @heard_if(lambda self: self.every_n_steps)
    ...     def on_step_end(self, trainer): ...
    """

    def mark(method: _Method) -> _Method:
        setattr(method, _CONDITION, condition)
        return method

    return mark


def is_heard(method: Callable[..., Any], plugin: Any) -> bool:
    """Whether ``plugin`` wants its hook ``method`` to be called, as it is set now."""
    condition = getattr(method, _CONDITION, None)
    return condition is None or bool(condition(plugin))
