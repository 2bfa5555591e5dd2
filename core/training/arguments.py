"""Check what a ``Trainer`` is given; what would fail later is refused when passed."""

from __future__ import annotations

from training.errors import ConfigError


def at_least_one(name: str, value: int) -> int:
    """Return ``value``; refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; use a whole number of at least 1")
    return value
