"""Sort plugins by what they declare, never by how they were installed or listed."""

from __future__ import annotations

import graphlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from training.bus.callback import BuiltIn
from training.errors import PluginError

log = logging.getLogger(__name__)

#: Edge (first, second) -> the sentence that explains it.
Reasons = dict[tuple[str, str], str]

RELATIONS = ("before", "after")


def relation_mistake(plugin: Any) -> str:
    """Return what is wrong with its ``before`` or ``after``, ``""`` if nothing."""
    for key in RELATIONS:
        value = getattr(plugin, key, ())
        # A text would pass for a collection, of letters.
        is_collection = isinstance(value, (tuple, list, set, frozenset))
        if not is_collection or not all(isinstance(name, str) for name in value):
            return f"declares {key} = {value!r}; write names in a tuple: ('csv',)"
    return ""


def warn_of_unasked(hook: str, name: str, listeners: Sequence[Any]) -> None:
    """Tell who listens to ``hook``, too, and comes after ``name``, which answered."""
    names = [impl.plugin_name for impl in listeners]
    # Not there: it took itself out as it was asked.
    if name in names and (others := names[names.index(name) + 1 :]):
        log.warning(
            "the answer to %s is that of plugin %r, which comes first; not asked: %s",
            *(hook, name, ", ".join(others)),
        )


def meant_names(
    plugins: Mapping[str, Any], by_parts: bool = True
) -> dict[str, list[str]]:
    """Return each name that a relation may say -> the plugins that go by it.

    They do by the name they run under, by that of their class, and by what they declare
    to change: ``mutates:optimizer``.
    """
    meant: dict[str, list[str]] = {}
    for name, plugin in plugins.items():
        given = {name, *(getattr(of, "name", name) for of in (plugin, type(plugin)))}
        given |= {f"mutates:{p}" for p in getattr(plugin, "mutates", ()) if by_parts}
        for each in {each for each in given if isinstance(each, str)}:
            meant.setdefault(each, []).append(name)
    return meant


def bus_order(plugins: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``plugins`` as ``solve_order`` does, between those built in."""
    # Those built in are solved with nobody: no `before` of a plugin moves them.
    chosen = not_built_in(plugins)
    built_in = [name for name in plugins if name not in chosen]
    order = [name for name in built_in if not plugins[name].is_last]
    order += solve_order(chosen)[0]
    order += [name for name in built_in if plugins[name].is_last]
    return {name: plugins[name] for name in order}


def not_built_in(plugins: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that somebody chose."""
    return {n: each for n, each in plugins.items() if not isinstance(each, BuiltIn)}


def solve_order(
    plugins: Mapping[str, Any], by_parts: bool = True
) -> tuple[list[str], Reasons]:
    """Return plugin names sorted by their ``before``/``after``, ties by name; and why.

    Ties are broken by name, never by installation or list order, so that equal
    selections give equal runs. Names of absent plugins are allowed: they bind once
    such a plugin joins. One that runs under another name keeps its class's relations.
    Where names and ``mutates:`` make a circle, names hold.

    Raises:
        PluginError: the relations run in a circle.
    """
    edges: dict[str, set[str]] = {name: set() for name in sorted(plugins)}
    meant, reasons = meant_names(plugins, by_parts), Reasons()
    for name in edges:
        explicit = {n for key in RELATIONS for n in getattr(plugins[name], key, ())}
        for key in RELATIONS:
            for said in getattr(plugins[name], key, ()):
                for other in meant.get(said, ()):
                    # Meant by its class: not if named itself, nor by one of that class.
                    if other != said and (other in explicit or name in meant[said]):
                        continue
                    first, second = (name, other) if key == "before" else (other, name)
                    edges[second].add(first)
                    reasons[first, second] = f"{name!r} declares {key} {said!r}"
    sorter = graphlib.TopologicalSorter(edges)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        if by_parts:
            return solve_order(plugins, by_parts=False)
        circle = " -> ".join(error.args[1])
        raise PluginError(
            f"plugins cannot be ordered, their before/after run in a circle: {circle}"
        ) from error
    order, ready = [], []  # type: list[str], list[str]
    while sorter.is_active():
        # One at a time: what it frees may stand before what was ready already.
        ready = sorted([*ready, *sorter.get_ready()])
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order, reasons
