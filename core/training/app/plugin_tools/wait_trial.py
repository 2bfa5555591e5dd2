"""Let a plugin take part in a small run, to tell whether a GPU would be waited for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from training.messages.error_texts import error_text

__all__ = ["waits_remark"]


def waits_remark(cls: type[Any]) -> str:
    """Return what there is to say of a plugin's waits, ``""`` if it makes none.

    Built with its default options. That it waits is no mistake: it may have to, and a
    run on a CPU does not suffer.
    """
    waits = import_module("training.testing.waits")
    try:
        plugin = cls()
        found = waits.waits_with(plugin)
    except Exception as error:
        return f"whether a GPU would wait for it is unknown: {error_text(error)}"
    reasons = getattr(cls, "reads_device", ())
    lines = waits.told([wait for wait in found if not waits.is_declared(plugin, wait)])
    declared = sorted({w.hook for w in found if waits.is_declared(plugin, w)})
    for hook in declared:
        why = reasons[hook] if isinstance(reasons, Mapping) else "as it declares"
        lines.append(f"waits for the device in {hook}: {why}")
    return "\n  ".join(lines)
