"""What the weight of a mean loss may be, whoever says it."""

from __future__ import annotations

import logging
import math
from typing import Any

from training.errors import TrainbusError

__all__ = ["checked_weight", "warn_of_overruled"]

log = logging.getLogger("training.weighing")


def checked_weight(given: Any, what: str, error: type[TrainbusError]) -> float:
    """Return a weight as a number; waits for the device if it is a CUDA tensor.

    Args:
        given: the number of items that a mean loss is a mean over.
        what: who said it, as the beginning of a sentence that ends with the weight.
        error: what is raised: ``DataError`` where the batch itself said it.
    Raises:
        TrainbusError: of that kind: it is negative, infinite or no number.
    """
    # float() would take "3" and True, and hide the mistake.
    is_number = not isinstance(given, (bool, str, bytes))
    try:
        weight = float(given) if is_number else math.nan
    except (TypeError, ValueError, OverflowError):
        weight, is_number = math.nan, False
    # NaN fails this comparison, too.
    if not 0.0 <= weight < math.inf:
        shown = weight if is_number else repr(given)
        raise error(
            f"{what} {shown}; make it the number of items that "
            "the mean loss is a mean over, 0 or more"
        )
    return weight


def warn_of_overruled(loss_per: Any, what: str, weight: float, otherwise: str) -> None:
    """Warn that a ``loss_per`` does nothing, since a weight is said for a batch.

    Args:
        loss_per: as the Trainer's.
        what: who said it, as for ``checked_weight``.
        weight: what was said.
        otherwise: what to do for ``loss_per`` to count.
    """
    given = repr(loss_per) if isinstance(loss_per, str) else "a function"
    log.warning(
        "loss_per is %s, but %s %g, which counts: leave loss_per out, or %s",
        *(given, what, weight, otherwise),
    )
