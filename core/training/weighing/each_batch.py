"""Weigh each batch as it comes: the usual ones at once, all others by the Weigher."""

from __future__ import annotations

from typing import Any

from training.feed.divided_loader import DividedLoader
from training.feed.feed import Weigh
from training.weighing.weigher import Weigher


def weigher_of(*given: Any) -> Weigher:
    """Return what weighs batches, or this process's parts of them.

    Args:
        given: as those of ``Weigher``, and last by which processes the run is computed.
    """
    *own, strategy = given
    if not strategy.is_divided:
        return Weigher(*own)
    # Late: a run of one process need not import it.
    from training.weighing.parts import PartWeigher

    return PartWeigher(*own, strategy=strategy)


def weighing(weigher: Weigher, source: Any) -> Weigh:
    """Return the function that weighs each batch of ``source`` when its turn comes.

    It is given the batch and what it came from: ``issued`` are its indices, or None.

    Args:
        weigher: decides what a batch weighs.
        source: yields the batches.
    """
    if isinstance(source, DividedLoader):
        from training.weighing.parts import PartWeigher

        assert isinstance(weigher, PartWeigher)
        return weigher.weigh_part

    def weigh(batch: Any, source: Any) -> float:
        usual = weigher.usual
        weight = None if usual is None else usual(batch, source)
        if weight is None:
            weight = weigher(batch, source.issued)
            if weigher.usual is None:
                weigher.find_usual()
        return weight

    return weigh
