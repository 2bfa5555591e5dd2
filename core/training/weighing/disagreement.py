"""What is raised where processes have told otherwise of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from training.errors import ConfigError
from training.hardware.strategy import Strategy
from training.weighing.sentences import WAYS_OUT
from training.weighing.subject import Look

#: What a process tells of the batch, in this order.
WHAT = ("unit", "what it may be", "whether it is known", "scale")


def refuse(strategy: Strategy, found: Sequence[Sequence[Any]], seen: Look) -> NoReturn:
    """Raise on all processes what made them differ; called by all.

    Args:
        strategy: of many processes.
        found: what each has told.
        seen: what this one has measured.
    Raises:
        OutOfMemoryError: one of them had no room for any of the batch.
        ConfigError: they have measured it, and not the same.
    """
    strategy.on_each(partial(_require_room, seen))
    told = dict(zip(WHAT, zip(*found, strict=True), strict=True))
    what = next(name for name, each in told.items() if any(e != each[0] for e in each))
    said = ", ".join(f"{each!r} on rank {rank}" for rank, each in enumerate(told[what]))
    raise ConfigError(
        f"what the loss is a mean over was measured otherwise in each process ({what} "
        f"is {said}): {WAYS_OUT}"
    )


def _require_room(seen: Look) -> None:
    if seen.has_no_room:
        why = "; ".join(seen.reasons)
        raise torch.OutOfMemoryError(
            f"a batch was measured, to tell what its loss is a mean over, and {why}"
        )
