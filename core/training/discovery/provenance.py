"""Where a plugin comes from: its class, its distribution, and that one's version."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache, reduce
from typing import Any

from training.discovery.entry_points import PluginInfo, announced


def describe_plugins(plugins: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each plugin its class, distribution and version, as JSON values.

    The last two are None for a class that no installed distribution announces.
    """
    described = {}
    for name, plugin in plugins.items():
        kind = type(plugin)
        info = announcement_of(kind)
        described[name] = {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "distribution": info and info.distribution,
            "version": info and info.version,
        }
    return described


def describe(plugin: Any) -> str:
    """Return the class of ``plugin``, or that class itself, and its distribution."""
    kind = plugin if isinstance(plugin, type) else type(plugin)
    try:
        info = announcement_of(kind)
    except Exception:  # what is installed cannot be read; the class says enough
        info = None
    text = f"{kind.__module__}.{kind.__qualname__}"
    return f"{text}, {info.distribution} {info.version}" if info else text


def announcement_of(kind: type[Any]) -> PluginInfo | None:
    """Return what announces ``kind``, or else the package that it is written in.

    The top package alone says little: distributions may share a namespace.
    """
    best, length = None, 0
    for info in _announced(tuple(sys.path)):
        module, _, name = info.value.partition(":")
        if _loaded(module, name) is kind:
            return info
        is_around = f"{kind.__module__}.".startswith(f"{module}.")
        if is_around and len(module) > length:
            best, length = info, len(module)
    return best


@lru_cache(maxsize=4)
def _announced(path: tuple[str, ...]) -> tuple[PluginInfo, ...]:
    # Read once: what is installed in mid-run is not what has been imported.
    return tuple(sorted(info for info in announced() if info.value))


def _loaded(module: str, name: str) -> Any:
    """Return what ``module:name`` is, None unless that module is imported already."""
    try:
        return reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return None
