"""Plugins that the main process alone calls, and what such a plugin may not be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from training.hooks.hook_api import RANKS

#: Hooks whose answers a process computes with, so that all need the same ones.
ANSWERED_BY_ALL = frozenset(
    {"make_strategy", "wrap_model", "wrap_dataloader", "make_window"}
)
#: Why one process cannot go on without a plugin.
ON_ALL = "runs on all processes, in step with the others"
#: Hooks of a run that ends here anyway: no process waits for what another misses.
ENDING = ("on_exception", "on_close")


def names_declaring(what: str, value: str, plugins: Mapping[str, Any]) -> set[str]:
    """Return the names of the plugins whose attribute ``what`` is ``value``."""
    return {n for n, p in plugins.items() if getattr(p, what, None) == value}


def ranks_mistake(plugin: Any, hooks: Iterable[str]) -> str:
    """Return what is wrong with the ``ranks`` of a plugin, ``""`` if nothing."""
    # What the bus obeys, be it of the class or of the instance.
    ranks = getattr(plugin, "ranks", "all")
    if not isinstance(ranks, str):  # an object may have ranks of its own, as [0, 1]
        ranks = getattr(type(plugin), "ranks", "all")
    if ranks not in RANKS:
        return f"says ranks = {ranks!r}; choose one of: {', '.join(RANKS)}"
    if ranks == "all":
        return ""
    steering = [f"answers {hook}" for hook in hooks if hook in ANSWERED_BY_ALL]
    if changed := getattr(plugin, "mutates", ()):
        steering.append(f"changes {', '.join(map(str, changed))}")
    if getattr(plugin, "alters_training", False):
        steering.append("alters training")
    if not steering:
        return ""
    return (
        f"says ranks = 'main', but {steering[0]}: the other processes would train "
        "something else; say 'all'"
    )
