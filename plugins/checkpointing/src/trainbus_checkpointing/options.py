"""Checks of constructor options: refuse at once, not at epoch 40."""

from __future__ import annotations

from training.errors import ConfigError


def require_int(option: str, value: object, minimum: int) -> None:
    """Raise ConfigError unless ``value`` is a whole number of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(
            f"checkpointing.{option} is {value!r}; use a whole number of at least "
            f"{minimum}"
        )


def require_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ConfigError(
            f"checkpointing.{option} is {value!r}; choose one of: {', '.join(choices)}"
        )
