"""The version of the hook API, and the marks of hooks and of their listeners."""

from __future__ import annotations

import functools
from typing import Any, Final

import pluggy

PROJECT: Final = "trainbus"
#: Raised by one when a hook or an argument is added, never for a removal within 1.x.
API_VERSION: Final = "1.2"
#: Hooks that 1.0 did not have -> the version that brought them.
SINCE: Final = {
    "make_strategy": "1.1",
    "make_window": "1.1",
    "plan_evaluations": "1.1",
    "plan": "1.1",
    "resume_candidates": "1.1",
    "needed_checkpoints": "1.1",
    "find_checkpoint": "1.1",
    "summary": "1.1",
    "on_predictions": "1.2",
    "evaluation_progress": "1.2",
}

#: What a plugin may declare as ``failure``.
FAILURE_POLICIES: Final = ("fatal", "isolate")
#: What a plugin may declare as ``ranks``.
RANKS: Final = ("all", "main")

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def is_hook(value: Any) -> bool:
    """Whether ``value`` is a function that ``hookspec`` marks."""
    return callable(value) and hasattr(value, PROJECT + "_spec")


@functools.cache  # asked for each plugin and hook; a range is read in 20 us
def is_meant(hook: str, hook_api: str | None) -> bool:
    """Whether a plain method of a ``Callback`` with a hook's name is that hook.

    A class may have a method of that name for itself if it was written for a version
    without the hook, or does not say for which: it stays what it was, unless
    ``@hookimpl`` stands above it.

    Args:
        hook: one of ``HOOKS``.
        hook_api: the range that the class declares; None for any.
    """
    if hook not in SINCE:
        return True
    if hook_api is None:
        return False
    from packaging.specifiers import SpecifierSet

    major, _, minor = SINCE[hook].partition(".")
    declared = SpecifierSet(hook_api)
    return not any(f"{major}.{older}" in declared for older in range(int(minor)))
