"""Weigh each batch as it comes: the usual ones at once, all others by the Weigher."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.feed.divided_loader import DividedLoader
from training.feed.share import StandIn

if TYPE_CHECKING:
    from training.weighing.weigher import Weigher


def weighing(weigher: Weigher, source: Any) -> Callable[[Any], float]:
    """Return the function that weighs each batch of ``source`` as it comes.

    Args:
        weigher: decides what a batch weighs.
        source: its ``issued`` are the indices of the batch that came last, or None.
    """

    def weigh_part(batch: Any) -> float:
        return StandIn() if source.stands_in else weigh(batch)

    def weigh(batch: Any) -> float:
        usual = weigher.usual
        weight = None if usual is None else usual(batch, source)
        if weight is None:
            weight = weigher(batch, source.issued)
            if weigher.usual is None:
                weigher.find_usual()
        return weight

    return weigh_part if isinstance(source, DividedLoader) else weigh
