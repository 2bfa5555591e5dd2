"""Watch a metric: it must be reported, and is likely to be better one way."""

from __future__ import annotations

import logging
import re
from typing import Any

__all__ = ["require_watched"]

log = logging.getLogger(__name__)

#: Words in the names of metrics of which the largest value is the best.
LARGER = frozenset({"acc", "accuracy", "auc", "auroc", "bleu", "f1", "iou", "exact"})
#: Words in the names of those of which it is not, whatever else is in them.
SMALLER = frozenset({"loss", "error"})


def require_watched(trainer: Any, monitor: str | None, mode: str, owner: str) -> None:
    """Refuse a monitor that nobody reports; warn where ``mode`` keeps the worst value.

    No mode is guessed from a name: what was set, or is usual, holds.

    Args:
        trainer: of the run.
        monitor: name of the metric; None: nothing is watched.
        mode: ``"min"`` or ``"max"``.
        owner: the plugin, by the name that it goes by.
    Raises:
        MetricError: nobody will report it.
    """
    if monitor is None:
        return
    trainer.require_metric(monitor, f"{owner}.monitor")
    words = set(re.split(r"[^a-z0-9]+", monitor.lower()))
    if mode == "min" and words & LARGER and not words & SMALLER:
        log.warning(
            "%s watches %r with mode 'min', so that the smallest value counts as the "
            "best; set mode to 'max' if the largest is",
            *(owner, monitor),
        )
