"""Wrappers: plugins that surround an event, and give back what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from training.bus.slots import note_culprit
from training.messages.error_texts import add_note, notes_of, repr_of

if TYPE_CHECKING:
    from training.bus.meter import Meter


@contextmanager
def scope(
    wrapper: pluggy.HookImpl,
    hook: str,
    arguments: Mapping[str, Any],
    meter: Meter | None = None,
) -> Iterator[None]:
    """Run a wrapper (a generator that yields once) around the body.

    An error of the body reaches the wrapper, so that it can clean up, and is raised
    afterwards whatever the wrapper does with it.

    Raises:
        BaseException: what the body raised; or what the wrapper raised, with a note
            that names the plugin.
    """
    function: Callable[..., Any] = contextmanager(wrapper.function)  # type: ignore[arg-type]
    inner: AbstractContextManager[Any] = function(
        *(arguments[name] for name in wrapper.argnames)
    )
    enter, leave = inner.__enter__, inner.__exit__
    if meter is not None:
        call = meter.for_call(wrapper.plugin_name, hook)
        # Not the body between them: that is on the account of those it calls.
        enter, leave = partial(call, enter), partial(call, leave)
    try:
        enter()
    except BaseException as error:
        note_culprit(error, wrapper, hook, arguments)
        raise
    failure: BaseException | None = None
    try:
        yield
    # Kept: the wrapper is to clean up before it is raised.
    except BaseException as error:
        failure = error
    given = (type(failure), failure, failure.__traceback__) if failure else (None,) * 3
    try:
        leave(*given)
    except BaseException as error:
        if error is failure:
            raise
        note_culprit(error, wrapper, hook, arguments)
        if failure is None:
            raise
        # What came first is the cause, and is what the run ends with.
        add_note(failure, f"then its wrapper failed: {repr_of(error)}")
        for note in notes_of(error):
            add_note(failure, note)
    if failure is not None:
        raise failure  # a wrapper observes a failure; it never hides it


def entered_wrappers(
    wrappers: Sequence[pluggy.HookImpl],
    hook: str,
    arguments: Mapping[str, Any],
    meter: Meter | None = None,
) -> ExitStack:
    """Return a context in which all wrappers of an event are open, the first outside.

    Raises:
        BaseException: what one raised on the way in; those around it have heard of it.
    """
    with ExitStack() as scopes:
        for wrapper in wrappers:
            scopes.enter_context(scope(wrapper, hook, arguments, meter))
        # Open for the caller; had one raised, those before it would be closed by now.
        return scopes.pop_all()
