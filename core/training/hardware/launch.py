"""What a launcher such as torchrun says in the environment of each process it starts.

Nothing here waits for another process, nor for torch.
"""

from __future__ import annotations

import os

from training.errors import ConfigError


def number_started() -> int:
    """Return how many processes were started together; 1 where nobody says.

    Raises:
        ConfigError: ``WORLD_SIZE`` is no number of processes.
    """
    return _number("WORLD_SIZE", 1, least=1)


def rank_started() -> int:
    """Return which of them this one is, from 0."""
    return _number("RANK", 0)


def number_of_restarts() -> int:
    """Return how often torchrun has started the processes of this job anew."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def job() -> str | None:
    """Return what torchrun calls all lives of this job together; None without it."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def _number(name: str, default: int, least: int = 0) -> int:
    said = os.environ.get(name, "")
    if not said:
        return default
    if not said.isdecimal() or int(said) < least:
        raise ConfigError(
            f"the environment says {name}={said!r}; use a whole number of at least "
            f"{least}, as torchrun sets it, or unset it"
        )
    return int(said)
