"""Tools for the tests of plugins and of model families.

As a pytest plugin (entry point ``trainbus``) it offers the fixtures ``tiny_trainer``,
``run_events`` and ``assert_plugin_conforms``; the functions behind them are here, for
use without fixtures. Nothing heavy is imported before the first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.testing.conformance import CHECKS, assert_plugin_conforms
    from training.testing.family.checks import FAMILY_CHECKS
    from training.testing.family.conformance import assert_family_conforms
    from training.testing.runs import Event, Heard, run_events, tiny_trainer
    from training.testing.toys import tiny_batches
    from training.testing.waits import Wait, assert_no_waits, waits_of

__all__ = [
    "CHECKS",
    "FAMILY_CHECKS",
    "Event",
    "Heard",
    "Wait",
    "assert_family_conforms",
    "assert_no_waits",
    "assert_plugin_conforms",
    "run_events",
    "tiny_batches",
    "tiny_trainer",
    "waits_of",
]

_MODULES = {
    "CHECKS": "training.testing.conformance",
    "Event": "training.testing.runs",
    "Heard": "training.testing.runs",
    "FAMILY_CHECKS": "training.testing.family.checks",
    "assert_family_conforms": "training.testing.family.conformance",
    "Wait": "training.testing.waits",
    "assert_no_waits": "training.testing.waits",
    "assert_plugin_conforms": "training.testing.conformance",
    "run_events": "training.testing.runs",
    "tiny_batches": "training.testing.toys",
    "tiny_trainer": "training.testing.runs",
    "waits_of": "training.testing.waits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
