"""Where a plugin comes from: its class, its distribution, and that one's version."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from training import discovery

__all__ = ["describe_plugins"]


def describe_plugins(plugins: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each plugin its class, distribution and version, as JSON values.

    The last two are None for a class that no installed distribution announces.
    """
    known = _announced(tuple(sys.path))
    described = {}
    for name, plugin in plugins.items():
        kind = type(plugin)
        top = kind.__module__.partition(".")[0]
        distribution, version = known.get((top, kind.__qualname__), (None, None))
        described[name] = {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "distribution": distribution,
            "version": version,
        }
    return described


@lru_cache(maxsize=4)
def _announced(path: tuple[str, ...]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (top-level package, class) -> (distribution, version)."""
    return {
        (info.value.partition(":")[0].partition(".")[0], info.value.rpartition(":")[2]):
        (info.distribution, info.version)
        for info in discovery.installed()
    }  # fmt: skip
