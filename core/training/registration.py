"""What a plugin must be like to be let in: a name, a policy, hooks spelt right."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pluggy

from training.callbacks import Callback
from training.errors import PluginError, did_you_mean
from training.hookspecs import API_VERSION, HOOKS, PROJECT
from training.slots import describe

log = logging.getLogger(__name__)

FAILURE_POLICIES = ("fatal", "isolate")


def checked_name(plugin: Any, name: str | None) -> str:
    """Return the name that ``plugin`` shall go by, once it is seen to be usable.

    Raises:
        PluginError: a class instead of an instance, a name that is no string, an
            unknown failure policy, a hook API that is not this one, a misspelt hook.
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


def check_arguments(manager: pluggy.PluginManager, plugin: Any, name: str) -> None:
    """Refuse arguments of hooks that are not offered, or would never be filled."""
    for hook in HOOKS:
        method = getattr(plugin, hook, None)
        if method is None or manager.parse_hookimpl_opts(plugin, hook) is None:
            continue
        spec = getattr(manager.hook, hook).spec
        required, optional = _argument_names(method)
        foreign = [argument for argument in required if argument not in spec.argnames]
        if foreign:
            hint = did_you_mean(foreign[0], spec.argnames)
            raise PluginError(
                f"plugin {name!r} does not fit ({describe(plugin)}): {hook} has no "
                f"argument {foreign[0]!r}{hint}; it has: {', '.join(spec.argnames)}"
            )
        never = [argument for argument in optional if argument in spec.argnames]
        if never:
            raise PluginError(
                f"plugin {name!r} gives the argument {never[0]!r} of {hook} a default, "
                "which would always win; remove it"
            )


def _argument_names(method: Any) -> tuple[list[str], list[str]]:
    """Return the names of arguments without and with a default."""
    named = [
        argument
        for argument in inspect.signature(method).parameters.values()
        if argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.POSITIONAL_ONLY)
    ]
    empty = inspect.Parameter.empty
    return (
        [each.name for each in named if each.default is empty],
        [each.name for each in named if each.default is not empty],
    )


def _refuse_misspelt(plugin: Callback, name: str) -> None:
    for attribute in dir(type(plugin)):
        if attribute.startswith("on_") and attribute not in HOOKS:
            hint = did_you_mean(attribute, HOOKS)
            raise PluginError(
                f"plugin {name!r} has {attribute!r}, which is no hook{hint}; "
                f"the hooks are: {', '.join(HOOKS)}"
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
