"""One process's part of each batch of a loader that all processes read."""

from __future__ import annotations


class StandIn(float):
    """The weight of a batch that only stands in for an empty part: it counts nothing.

    Whatever weight the forward pass returns for it: no sample counts twice.
    """
