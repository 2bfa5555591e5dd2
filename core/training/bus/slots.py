"""Compile one plain function for each event, and say who raised.

The generated source has lines of its own for every listener, so the line on which an
exception passed tells which plugin raised it: attribution that costs nothing until
then. Failure isolation and time accounting are compiled in only where asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from training.hooks.answers import checked_answer
from training.hookspecs import HOOKS
from training.messages.error_texts import add_note, notes_of

if TYPE_CHECKING:
    from training.bus.meter import Meter

#: What the file names of compiled slots begin with, in tracebacks.
FILE_PREFIX = "<bus slot "

#: What the note begins with that says which plugin has raised an error.
RAISED_BY = "raised by plugin"

#: Kept: the runs of a process mostly have the same plugins.
_compile = functools.lru_cache(maxsize=256)(compile)

#: What a hook is called with, by name.
Arguments = Mapping[str, Any]
#: (name, plugin, hook, error, hook arguments) -> None, for a failure to go on after.
OnFailure = Callable[[str, Any, str, Exception, Arguments], None]


class Made(NamedTuple):
    """A part of a run that a plugin has made, when it was asked by a hook."""

    name: str
    plugin: Any
    hook: str
    part: Any


class Slots:
    """One attribute for each hook: a function, or None where nobody listens.

    At fixed places: a step looks at a dozen of them, and Python finds one in 5 ns. In
    the dict of an object with more than 30 names, or of a class that has a
    ``__getattr__``, it would take 40 ns.
    """

    __slots__ = HOOKS

    if TYPE_CHECKING:

        def __getattr__(self, hook: str) -> Callable[..., Any] | None: ...


def late(
    slots: Slots, hook: str, make: Callable[[str], Callable[..., Any]]
) -> Callable[..., Any]:
    """Return what puts ``make(hook)`` in its own place when it is first called.

    Who registers many plugins one by one then has each event compiled once.
    """

    def first(*arguments: Any) -> Any:
        if getattr(slots, hook) is first:
            setattr(slots, hook, make(hook))
        slot = getattr(slots, hook)
        # None: it was kept, and who listened then has been taken out.
        return None if slot is None else slot(*arguments)

    return first


def compile_slot(
    hook: str,
    arguments: tuple[str, ...],
    listeners: list[pluggy.HookImpl],
    isolated: Collection[str],
    on_failure: OnFailure,
    meter: Meter | None,
    first_result: bool,
) -> Callable[..., Any]:
    """Return one function that calls all listeners, each with the arguments it names.

    Args:
        hook: name of the event.
        arguments: the hook's arguments, in the order the function takes them.
        listeners: implementations in the order of calls.
        isolated: names of plugins whose exceptions go to ``on_failure``; the other
            listeners are then called all the same.
        on_failure: told of such an exception.
        meter: accounts for each call; None compiles no accounting.
        first_result: return the first result that is not None, and call nobody after.
    """
    signature = ", ".join(arguments)
    lines = [f"def {hook}({signature}):", "    try:"]
    owner: dict[int, pluggy.HookImpl] = {}
    scope: dict[str, Any] = {}

    for index, impl in enumerate(listeners):
        # A global, which each call looks up anew: ``silence`` can replace it.
        scope[f"f{index}"] = impl.function
        given = ", ".join(impl.argnames)
        call = f"f{index}({given})"
        if meter is not None:
            scope[f"m{index}"] = meter.for_call(impl.plugin_name, hook)
            call = f"m{index}(f{index}, {given})"
        if first_result:
            asked = f"{hook!r}, {impl.plugin_name!r}"
            call = f"if (result := {call}) is not None: return take({asked}, result)"
        body = [call]
        if impl.plugin_name in isolated:
            body = ["try:", f"    {call}", "except Exception as error:"]
            body.append(f"    survive(error, ({signature},))")
        for line in body:
            lines.append(" " * 8 + line)
            # By number: that is what tracebacks and frames know of a line.
            owner[len(lines)] = impl
    if not listeners:  # there are wrappers only
        lines.append(" " * 8 + "pass")
    lines += [
        "    except BaseException as error:",
        f"        blame(error, ({signature},))",
        "        raise",
    ]

    def named(values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(arguments, values, strict=True))

    def blame(error: BaseException, values: tuple[Any, ...]) -> None:
        note_culprit(error, _owner_of(error, owner), hook, named(values))

    def survive(error: Exception, values: tuple[Any, ...]) -> None:
        impl = _owner_of(error, owner)
        on_failure(impl.plugin_name, plugin_of(impl), hook, error, named(values))

    scope |= {"blame": blame, "survive": survive, "take": checked_answer}
    scope |= {"owner": owner, "listeners": listeners}
    # Once a change of plugins: an event is one call then, without a dispatch.
    exec(_compile("\n".join(lines), f"{FILE_PREFIX}{hook}>", "exec"), scope)
    slot: Callable[..., None] = scope[hook]
    return slot


def call(
    impl: pluggy.HookImpl,
    hook: str,
    arguments: Arguments,
    meter: Meter | None,
) -> Any:
    """Return what one listener says, where each is to be asked by itself."""
    given = [arguments[name] for name in impl.argnames]
    if meter is None:
        return impl.function(*given)  # no meter, no cost
    return meter.for_call(impl.plugin_name, hook)(impl.function, *given)


def plugin_of(impl: pluggy.HookImpl) -> Any:
    """Return the plugin that ``impl`` belongs to; pluggy holds its ``Hooks``."""
    return getattr(impl.plugin, "trainbus_plugin", impl.plugin)


def silence(slot: Callable[..., Any], plugin_name: str) -> None:
    """Let a compiled function call that plugin no more, be it in the middle of a call.

    It looks its listeners up by name, one by one: nothing is paid for this before.
    """
    scope = slot.__globals__
    for index, impl in enumerate(scope["listeners"]):
        if impl.plugin_name == plugin_name:
            scope[f"f{index}"] = lambda *_: None


def _owner_of(
    error: BaseException, owner: Mapping[int, pluggy.HookImpl]
) -> pluggy.HookImpl:
    """Return whose line the exception passed in the compiled function."""
    traceback = error.__traceback__
    assert isinstance(traceback, TracebackType)
    # The outermost entry is the slot itself, which has just caught it.
    return owner[traceback.tb_lineno]


def note_culprit(
    error: BaseException,
    impl: pluggy.HookImpl,
    hook: str,
    arguments: Arguments,
) -> None:
    """Write on ``error`` which plugin raised it, in which hook and at which step."""
    step = getattr(arguments.get("trainer"), "step", None)
    note_plugin(error, impl.plugin_name, plugin_of(impl), hook, step)


def note_plugin(
    error: BaseException, name: str, plugin: Any, place: str, step: int | None
) -> None:
    """Write on ``error``, once, that ``plugin`` raised it in the method ``place``."""
    if raised_by_other_plugin(error, name):
        return  # this one has only asked
    where = "" if step is None else f" at step {step}"
    add_note(error, f"{RAISED_BY} {name!r} ({describe(plugin)}) in {place}{where}")


def raised_by_other_plugin(error: BaseException, name: str) -> bool:
    """Whether ``error`` says that another plugin than ``name`` has raised it."""
    told = next((n for n in notes_of(error) if n.startswith(RAISED_BY)), None)
    return told is not None and not told.startswith(f"{RAISED_BY} {name!r} (")


def removal_obstacle(name: str, made: Iterable[Made]) -> str:
    """Return why a plugin cannot leave a run that goes on, ``""`` if it can."""
    hook = next((each.hook for each in made if each.name == name), "")
    return hook and f"cannot leave the run, where what its {hook} made stays"


def describe(plugin: Any) -> str:
    """Return the class of ``plugin``, or that class itself, and its distribution."""
    # Reads what is installed: only when told of errors.
    from training.discovery import provenance

    return provenance.describe(plugin)
