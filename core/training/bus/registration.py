"""What a plugin must be like to be let in: a name, a policy, hooks spelt right."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pluggy

from training.bus.callback import Callback
from training.bus.foreign_hooks import hint_for
from training.bus.order import relation_mistake
from training.bus.ranks import ranks_mistake
from training.bus.slots import describe
from training.errors import PluginError
from training.hooks.hook_api import FAILURE_POLICIES, PROJECT, is_meant
from training.hookspecs import HOOKS
from training.messages.error_texts import error_text

#: Owners of requests that are no plugins.
NOT_PLUGINS = ("signal", "trainer", "user")
#: Reads the marks that ``hookimpl`` leaves.
_MARKS = pluggy.PluginManager(PROJECT)


class Hooks:
    """What pluggy sees of a plugin: its implementations, and an identity.

    pluggy compares plugins by ``==``, where two that are equal (dataclasses) would be
    one, and asks nothing of a value that is no method.

    Attributes:
        trainbus_plugin: the plugin.
        marks: name of an implementation -> the options of its mark.
    """

    def __init__(self, plugin: Any) -> None:
        self.trainbus_plugin = plugin
        self.marks: dict[str, Mapping[str, Any]] = {}

    @property
    def heard(self) -> list[str]:
        """The events that are implemented."""
        return [mark["specname"] for mark in self.marks.values()]

    def add(self, hook: str, function: Any, options: Mapping[str, Any]) -> None:
        """Take in one implementation of ``hook``."""
        name = f"hook_{len(self.marks)}"
        self.marks[name] = {**options, "specname": hook}
        setattr(self, name, function)


class Manager(pluggy.PluginManager):
    """A plugin manager whose plugins are ``Hooks``, which say what marks they bear."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Return the options of the mark that an implementation bears."""
        return plugin.marks.get(name)


def checked_name(plugin: Any, name: str | None) -> str:
    """Return the name that ``plugin`` shall go by, once it is seen to be usable.

    Raises:
        PluginError: a class instead of an instance, a name that is no string or
            cannot be told apart in a record, an unknown failure policy, a hook API that
            is not this one, a misspelt hook or attribute, a ``before`` or ``after``
            that is no tuple of names, a state that is never read.
    """
    # Late, here and in ``hooks_of``: how plugins declare is nothing to the loop.
    from training.bus.declared import (
        api_mistake,
        declared_mistake,
        refuse_misspelt_hooks,
    )

    # First: all that follows would be asked of the class.
    if inspect.isclass(plugin):
        raise PluginError(
            f"{plugin.__name__} is a class; pass an instance: {plugin.__name__}(...)"
        )
    name = getattr(plugin, "name", None) if name is None else name
    name = type(plugin).__name__ if name is None else name
    if not isinstance(name, str):
        raise PluginError(f"{describe(plugin)} has the name {name!r}; use a string")
    # Names stand in logs, in checkpoints and on command lines.
    if not name or not name.isprintable() or name != name.strip():
        raise PluginError(
            f"{describe(plugin)} has the name {name!r}; use printable characters, and "
            "no space around them"
        )
    if name in NOT_PLUGINS:
        raise PluginError(
            f"{describe(plugin)} has the name {name!r}, which says that no plugin "
            f"asked for something; use another than: {', '.join(NOT_PLUGINS)}"
        )
    failure = getattr(plugin, "failure", "fatal")
    if failure not in FAILURE_POLICIES:
        raise PluginError(
            f"plugin {name!r} has the failure policy {failure!r}; choose one of: "
            f"{', '.join(FAILURE_POLICIES)}"
        )
    complaint = api_mistake(getattr(plugin, "hook_api", None))
    complaint = complaint or relation_mistake(plugin) or declared_mistake(plugin)
    if complaint:
        raise PluginError(f"plugin {name!r} ({describe(plugin)}) {complaint}")
    if isinstance(plugin, Callback):
        refuse_misspelt_hooks(plugin, name)
    return name


def hooks_of(manager: pluggy.PluginManager, plugin: Any, name: str) -> Hooks:
    """Return the implementations of ``plugin``; None in a hook's place is no hook.

    Raises:
        PluginError: a hook or an argument that is not offered, one that would never be
            filled, a value or a function of a kind that is not called, an object that
            has no hook at all, or ``ranks`` that the plugin cannot keep to.
    """
    from training.bus.declared import refuse_without_hooks, warn_of_unmarked
    from training.bus.methods import method_mistake

    hooks = Hooks(plugin)
    for hook, attribute, marks in marked(plugin):
        if hook not in HOOKS:
            raise PluginError(
                f"plugin {name!r} ({describe(plugin)}) marks {hook!r}, which is no "
                f"hook{hint_for(hook)}; the hooks are: {', '.join(HOOKS)}"
            )
        try:
            # A property runs its code here.
            method = getattr(plugin, attribute)
        except Exception as error:
            raise PluginError(
                f"plugin {name!r} ({describe(plugin)}) has a hook's name, {hook}, that "
                f"cannot be read ({error_text(error)}); write a method"
            ) from error
        # How an heir switches an inherited hook off.
        if method is None:
            continue
        offered = getattr(manager.hook, hook).spec.argnames
        if complaint := method_mistake(method, hook, marks, offered):
            raise PluginError(
                f"plugin {name!r} does not fit ({describe(plugin)}): {complaint}"
            )
        # As it is now: one that is set on the plugin later is not heard.
        hooks.add(hook, method, marks)
    if complaint := ranks_mistake(plugin, hooks.heard):
        raise PluginError(f"plugin {name!r} ({describe(plugin)}) {complaint}")
    if not hooks.marks:
        refuse_without_hooks(plugin, name)
    if not isinstance(plugin, Callback):
        warn_of_unmarked(plugin, name)
    return hooks


def marked(plugin: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (hook, attribute, options) of all that is a hook; no property is run."""
    # dir(), not vars(): inherited hooks count, and what an instance was given.
    for attribute in dir(plugin):
        options: Any = _MARKS.parse_hookimpl_opts(plugin, attribute)
        if options is None and attribute in HOOKS and isinstance(plugin, Callback):
            # Its methods need none; one not meant is its own, and it is told so.
            options = {} if is_meant(attribute, plugin.hook_api) else None
        if options is not None:
            yield options.get("specname") or attribute, attribute, options
