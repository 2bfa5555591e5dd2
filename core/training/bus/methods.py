"""What a method in a hook's place must be like, so that it can be called."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from training.bus.conditions import condition_mistake
from training.bus.ranks import ENDING
from training.errors import did_you_mean


def method_mistake(
    method: Any, hook: str, options: Mapping[str, Any], offered: Sequence[str]
) -> str:
    """Return why ``method`` cannot be called as ``hook``, ``""`` if it can."""
    return (
        _kind_mistake(method, hook, options)
        or condition_mistake(method, hook)
        or _argument_mistake(method, hook, offered)
    )


def async_mistake(hook: str) -> str:
    """Return what is wrong with a hook that is ``async def``."""
    return f"{hook} is `async def`, which nobody awaits; write `def`"


def _kind_mistake(method: Any, hook: str, options: Mapping[str, Any]) -> str:
    """Return why a value of this kind is not called as it stands, or ``""``."""
    if not inspect.isfunction(method) and not isinstance(method, MethodType):
        return (
            f"{hook} is {reprlib.repr(method)}, and only methods and functions are "
            "called; write `def`, None for no hook, or give it another name"
        )
    # Called, it would return a coroutine and do nothing, each step anew.
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        return async_mistake(hook)
    if options.get("hookwrapper"):
        return f"{hook} says hookwrapper=True; write wrapper=True and yield once"
    if options.get("tryfirst") or options.get("trylast"):
        which = "tryfirst" if options.get("tryfirst") else "trylast"
        return f"{hook} says {which}; the order is declared with `before` and `after`"
    if options.get("wrapper"):
        if hook in ENDING:  # everybody is called, whatever happens
            return f"{hook} cannot be wrapped, it is for cleaning up; listen to it"
        if not inspect.isgeneratorfunction(method):
            return f"{hook} says wrapper=True and does not yield; yield once"
    # Called, it would return a generator; names may come from one.
    elif inspect.isgeneratorfunction(method) and hook != "metric_names":
        return f"{hook} yields; mark it with @hookimpl(wrapper=True), or return"
    return ""


def _argument_mistake(method: Any, hook: str, offered: Sequence[str]) -> str:
    """Return what is wrong with the arguments of a hook, or ``""``."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    named = () if code is None else code.co_varnames[: code.co_argcount]
    arguments = inspect.signature(method).parameters
    for argument in arguments.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            # Beside what is named they may stand for what is not wanted.
            if argument.name in offered or not arguments.keys() & set(offered):
                return (
                    f"{hook} takes all arguments as {argument}, which stays empty; "
                    f"name those it needs, of: {', '.join(offered)}; a decorator that "
                    "takes them so must use functools.wraps"
                )
            continue
        has_default = argument.default is not argument.empty
        free = [name for name in offered if name not in arguments]
        hint = did_you_mean(argument.name, free)
        # One with a default may be the method's own, but hardly with nearly that name.
        if argument.name not in offered and (hint or not has_default):
            return (
                f"{hook} has no argument {argument.name!r}{hint}; it has: "
                f"{', '.join(offered)}"
            )
        if argument.name in offered and has_default:
            return (
                f"it gives the argument {argument.name!r} of {hook} a default, which "
                "would always win; remove it"
            )
        if argument.kind is argument.KEYWORD_ONLY and not has_default:
            return (
                f"{hook} takes {argument.name!r} by keyword only, and would not get "
                "it; remove the `*` before it"
            )
        if argument.name in offered and argument.name not in named:
            return (
                f"{hook} hides its argument {argument.name!r} behind a partial or a "
                "decorator; write a method that names it"
            )
    return ""
