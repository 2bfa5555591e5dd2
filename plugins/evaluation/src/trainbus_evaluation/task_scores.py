"""Whether a task measures what it declares, in numbers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from training import ConfigError

logger = logging.getLogger(__name__)


def checked_scores(task: Any, method: str, found: Any) -> dict[str, Any]:
    """Return what ``score`` or ``summarise`` of a task returned.

    Raises:
        ConfigError: it is no mapping of names to numbers.
    """
    is_mapping = isinstance(found, Mapping)
    if not is_mapping or not all(_is_number(value) for value in found.values()):
        raise ConfigError(
            f"{method} of the task {_name(task)} returned {found!r}; return a mapping "
            "of metrics to numbers"
        )
    return dict(found)


def warn_of_missing(task: Any, wanted: Sequence[str], found: Collection[str]) -> bool:
    """Warn of a metric that no row has that was scored; return whether there is one."""
    missing = [name for name in wanted if name != "loss" and name not in found]
    if missing:
        logger.warning(
            "the task %s declares the metric %r, but neither its score nor its "
            "summarise returned it for any of the rows that were measured; return it, "
            "or take it out of metrics",
            *(_name(task), missing[0]),
        )
    return bool(missing)


def _is_number(value: Any) -> bool:
    """Whether it is one, of whatever library; a text that reads as one is none."""
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _name(task: Any) -> str:
    return type(task).__name__
