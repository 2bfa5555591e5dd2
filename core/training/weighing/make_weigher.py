"""Which weigher a run uses: of batches, or of one process's parts of them."""

from __future__ import annotations

from typing import Any

from training.hardware.strategy import Strategy
from training.weighing.weigher import Weigher


def weigher_of(*given: Any, strategy: Strategy, **options: Any) -> Weigher:
    """Return what weighs batches, or this process's parts of them.

    Args:
        given: as those of ``Weigher``.
        strategy: by which processes the run is computed.
        options: as those of ``Weigher``.
    """
    if not strategy.is_divided:
        return Weigher(*given, **options)
    # Late: a run of one process need not import it.
    from training.weighing.part_weigher import PartWeigher

    return PartWeigher(*given, strategy=strategy, **options)
