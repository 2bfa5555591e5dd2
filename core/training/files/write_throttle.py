"""How often to write what takes longer each time that it is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Of a run's time, what writing may take.
SHARE = 0.05


class WriteThrottle:
    """When to write next, by how long the last two times took."""

    def __init__(self) -> None:
        self._due = 0.0
        self._took = 0.0  # seconds of the last write

    @property
    def is_due(self) -> bool:
        """Whether writing again keeps to its share."""
        return time.perf_counter() >= self._due

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time the block, which writes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            # The lesser of two: a disk that has stalled once is not waited for since.
            took, self._took = self._took, ended - began
            self._due = ended + min(took, self._took) / SHARE
