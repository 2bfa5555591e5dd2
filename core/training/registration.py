"""What a plugin must be like to be let in: a name, a policy, hooks spelt right."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from training.callbacks import Callback
from training.errors import PluginError, did_you_mean
from training.hookspecs import API_VERSION, HOOKS, PROJECT
from training.order import relation_mistake
from training.slots import describe

log = logging.getLogger(__name__)

FAILURE_POLICIES = ("fatal", "isolate")
#: Events at which everybody is called whatever happens, so nobody stands around them.
TEARDOWN = ("on_exception", "on_close")


def checked_name(plugin: Any, name: str | None) -> str:
    """Return the name that ``plugin`` shall go by, once it is seen to be usable.

    Raises:
        PluginError: a class instead of an instance, a name that is no string, an
            unknown failure policy, a hook API that is not this one, a misspelt hook,
            a ``before`` or ``after`` that is no tuple of names.
    """
    if inspect.isclass(plugin):
        raise PluginError(
            f"{plugin.__name__} is a class; pass an instance: {plugin.__name__}(...)"
        )
    name = name or getattr(plugin, "name", None) or type(plugin).__name__
    if not isinstance(name, str):
        raise PluginError(f"{describe(plugin)} has the name {name!r}; use a string")
    failure = getattr(plugin, "failure", "fatal")
    if failure not in FAILURE_POLICIES:
        raise PluginError(
            f"plugin {name!r} has the failure policy {failure!r}; choose one of: "
            f"{', '.join(FAILURE_POLICIES)}"
        )
    complaint = api_mistake(getattr(plugin, "hook_api", None))
    complaint = complaint or relation_mistake(plugin)
    if complaint:
        raise PluginError(f"plugin {name!r} ({describe(plugin)}) {complaint}")
    if isinstance(plugin, Callback):
        _refuse_misspelt(plugin, name)
    else:
        _warn_of_unmarked(plugin, name)
    return name


def api_mistake(hook_api: Any) -> str:
    """Return what is wrong with a declared range of the hook API, ``""`` if nothing.

    Args:
        hook_api: a version range such as ``">=1.0,<2"``; None declares nothing.
    """
    if hook_api is None:
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = API_VERSION in SpecifierSet(hook_api)
    except (InvalidSpecifier, AttributeError, TypeError):
        return f"declares hook_api {hook_api!r}; write a range such as '>=1.0,<2'"
    if fits:
        return ""
    major, _, _ = API_VERSION.partition(".")
    return (
        f"needs hook API {hook_api}, but this trainbus has {API_VERSION} and serves "
        f"plugins written for >={major}.0,<={API_VERSION}; install releases that fit"
    )


def async_mistake(hook: str) -> str:
    """Return what is wrong with a hook that is ``async def``."""
    return f"{hook} is `async def`, which nobody awaits; write `def`"


def check_hooks(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    """Refuse hooks that would never be called as they are written.

    Raises:
        PluginError: a hook or an argument that is not offered, one that would never be
            filled, or a function of a kind that is not called.
    """
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        hook = options.get("specname") or attribute
        if hook not in HOOKS:
            hint = did_you_mean(hook, HOOKS)
            raise PluginError(
                f"plugin {name!r} ({describe(plugin)}) marks {hook!r}, which is no "
                f"hook{hint}; the hooks are: {', '.join(HOOKS)}"
            )
        method = getattr(plugin, attribute)
        complaint = _kind_mistake(method, hook, options) or _argument_mistake(
            method, hook, getattr(manager.hook, hook).spec.argnames
        )
        if complaint:
            raise PluginError(
                f"plugin {name!r} does not fit ({describe(plugin)}): {complaint}"
            )


def _kind_mistake(method: Any, hook: str, options: Mapping[str, Any]) -> str:
    """Return why a function of this kind is not called as it stands, or ``""``."""
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        return async_mistake(hook)
    if options.get("hookwrapper"):
        return f"{hook} says hookwrapper=True; write wrapper=True and yield once"
    if options.get("tryfirst") or options.get("trylast"):
        which = "tryfirst" if options.get("tryfirst") else "trylast"
        return f"{hook} says {which}; the order is declared with `before` and `after`"
    if options.get("wrapper"):
        if hook in TEARDOWN:
            return f"{hook} cannot be wrapped, it is for cleaning up; listen to it"
    elif inspect.isgeneratorfunction(method) and hook != "metric_names":
        return f"{hook} yields; mark it with @hookimpl(wrapper=True), or return"
    return ""


def _argument_mistake(method: Any, hook: str, offered: Sequence[str]) -> str:
    """Return what is wrong with the arguments of a hook, or ``""``."""
    for argument in inspect.signature(method).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        has_default = argument.default is not argument.empty
        if argument.name not in offered and not has_default:
            hint = did_you_mean(argument.name, offered)
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
    return ""


def _refuse_misspelt(plugin: Callback, name: str) -> None:
    """Refuse what begins like a hook and is none; warn of what nearly is one."""
    for attribute in dir(type(plugin)):
        if attribute in HOOKS or attribute.startswith("_"):
            continue
        if attribute.startswith("on_"):
            hint = did_you_mean(attribute, HOOKS)
            raise PluginError(
                f"plugin {name!r} has {attribute!r}, which is no hook{hint}; "
                f"the hooks are: {', '.join(HOOKS)}"
            )
        others = [hook for hook in HOOKS if not hasattr(plugin, hook)]
        near = difflib.get_close_matches(attribute, others, n=1, cutoff=0.85)
        if near and inspect.isfunction(getattr(type(plugin), attribute)):
            log.warning(
                "plugin %r has a method %r, which is no hook and is never called (did "
                "you mean %r?)",
                *(name, attribute, near[0]),
            )


def _warn_of_unmarked(plugin: Any, name: str) -> None:
    """Warn of hook-named methods that pluggy does not see, since nothing marks them."""
    for hook in HOOKS:
        method = getattr(type(plugin), hook, None)
        is_marked = hasattr(method, f"{PROJECT}_impl")
        # `evaluate` is what many an object calls a method of its own.
        if inspect.isfunction(method) and not is_marked and hook != "evaluate":
            log.warning(
                "plugin %r defines %s, which is not marked and is never called; "
                "put @training.hookimpl above it, or derive from training.Callback",
                *(name, hook),
            )
