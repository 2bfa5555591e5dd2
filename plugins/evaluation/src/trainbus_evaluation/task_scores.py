"""Whether what a task returns as scores are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training import ConfigError


def checked_scores(task: Any, method: str, found: Any) -> dict[str, Any]:
    """Return what ``score`` or ``summarise`` of a task returned.

    Raises:
        ConfigError: it is no mapping of names to numbers.
    """
    if not isinstance(found, Mapping) or not all(map(_is_number, found.values())):
        raise ConfigError(
            f"{method} of the task {type(task).__name__} returned {found!r}; "
            "return a mapping of metrics to numbers"
        )
    return dict(found)


def _is_number(value: Any) -> bool:
    """Whether it is one, of whatever library; a text that reads as one is none."""
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
