"""A unit that the first batches told is looked at again where later ones may differ."""

from __future__ import annotations

from collections.abc import Iterable

from training.weighing.subject import LIMIT, Look

#: The unit is looked at again 1, 2, 4, 8 and so on batches later, this at most.
LAST_LOOK = 4096
#: Shares that are off by more are not those of the unit, whatever the rounding.
CLEARLY = 0.01


class LaterLooks:
    """Tells which batches to look at again.

    An unknown unit may have had its shares in all of the first batch: weights of
    classes that it did not hold, for instance.

    Args:
        number: batches since the unit was found; None: there is nothing to look at.
    Attributes:
        are_left: whether there are any.
    """

    def __init__(self, number: int | None = None) -> None:
        self._number = number or 0
        self._next = 1 << self._number.bit_length()
        self.are_left = number is not None and self._next <= LAST_LOOK

    @property
    def number(self) -> int | None:
        """What goes on from here is made with, as a checkpoint keeps it."""
        return self._number if self.are_left else None

    def is_due(self) -> bool:
        """Count a batch; return whether it is one to look at."""
        self._number += 1
        if self._number < self._next:
            return False
        self._next *= 2
        self.are_left = self._next <= LAST_LOOK
        return True


def is_belied(live: Iterable[str], seen: Look) -> bool:
    """Return whether a later batch tells clearly that it is none of the units.

    Args:
        live: the units.
        seen: what the batch tells.
    """
    if not seen.is_none or seen.fit is None or seen.fit.rest > LIMIT:
        return False  # the rest grows as a loss falls; it was small at the beginning
    told = seen.fit
    (blur, other), shares = told.blur, [seen.shares.get(u, (1.0, 1.0)) for u in live]
    off = [max(abs(told.x - x) - blur, abs(told.y - y) - other) for x, y in shares]
    return min(off, default=0.0) > CLEARLY + told.near
