"""Which weigher a run uses: of batches, or of one process's parts of them."""

from __future__ import annotations

from typing import Any

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
    from training.weighing.part_weigher import PartWeigher

    return PartWeigher(*own, strategy=strategy)
