"""A unit that the first batches told is looked at again where later ones may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter, itemgetter
from typing import Any

from torch import Tensor

from training.feed.structure import fields_of, has_items
from training.weighing.candidates import IGNORED, has_classes, labels_of, num_kept
from training.weighing.subject import LIMIT, Look

#: The unit is looked at again 1, 2, 4, 8 and so on batches later, this at most.
LAST_LOOK = 4096
#: Shares that are off by more are not those of the unit, whatever the rounding.
CLEARLY = 0.01
#: What rounding may leave, over the norm of the first gradients: 1e-7 of those in fp32,
#: and up to 2e-5 later. It falls no lower while they do, and so hides what is left.
OF_ROUNDING = 1e-4


class LaterLooks:
    """Tells which batches to look at again.

    An unknown unit may have had its shares in all of the first batch: weights of
    classes that it did not hold, for instance, or labels in an entry of another name,
    all of which counted. So of batches with a -100 in whole numbers that are not known
    for labels the first is looked at, too, the second, the fourth and so on.

    Args:
        number: batches since the unit was found; None: there is nothing to look at.
        num_ignoring: of them those with such a -100.
    Attributes:
        are_left: whether there are any.
        num_ignoring: as above.
    """

    def __init__(self, number: int | None = None, num_ignoring: int = 0) -> None:
        self._number, self.num_ignoring = number or 0, num_ignoring
        self._next = 1 << self._number.bit_length()
        self._places: list[_Place] | None = None  # where whole numbers are
        self.are_left = number is not None and self._next <= LAST_LOOK

    @property
    def number(self) -> int | None:
        """What goes on from here is made with, as a checkpoint keeps it."""
        return self._number if self.are_left else None

    def is_due(self, batch: Any = None) -> bool:
        """Count a batch; return whether it is one to look at.

        Args:
            batch: on the host; None: a part, of which other processes see another.
        """
        if self._places is None:
            known = has_classes(labels_of(batch))
            self._places = [] if known else list(_whole_numbers_in(batch))
        self._number += 1
        if is_due := self._number == self._next:
            self._next *= 2
        if self._places and any(_ignores(batch, each) for each in self._places):
            self.num_ignoring += 1
            is_due |= self.num_ignoring.bit_count() == 1  # 1, 2, 4 and so on
        self.are_left = self._next <= LAST_LOOK
        return is_due


#: Steps that lead to an entry of a batch.
_Place = tuple[Callable[[Any], Any], ...]


def _whole_numbers_in(value: Any, levels: int = 8) -> Iterator[_Place]:
    """Yield the places of tensors of whole numbers that may be -100."""
    if isinstance(value, Tensor):
        # Not on a card, where each batch would wait for it.
        if value.is_cpu and value.ndim and has_classes(value) and value.dtype.is_signed:
            yield ()
        return
    steps: Iterable[tuple[Callable[[Any], Any], Any]]
    if has_items(value):
        steps = ((itemgetter(at), item) for at, item in enumerate(value))
    elif isinstance(value, Mapping):
        steps = ((itemgetter(name), item) for name, item in value.items())
    else:
        fields = fields_of(value) or {}
        steps = ((attrgetter(name), item) for name, item in fields.items())
    for step, item in steps if levels else ():  # an object may lead back to itself
        for rest in _whole_numbers_in(item, levels - 1):
            yield (step, *rest)


def _ignores(batch: Any, place: _Place) -> bool:
    """Whether whole numbers in that place of ``batch`` hold a -100."""
    try:
        for step in place:
            batch = step(batch)
        return num_kept(batch, IGNORED) < int(batch.numel())
    except (LookupError, AttributeError, TypeError):  # another kind of batch
        return False


def is_belied(
    live: Iterable[str], seen: Look, rest: float = 1.0, norm: float = 0.0
) -> bool:
    """Return whether a later batch tells clearly that it is none of the units.

    Args:
        live: the units.
        seen: what the batch tells.
        rest: the most that the first batches left.
        norm: of their gradients the largest 2-norm; 0: not known.
    """
    if not seen.is_none or seen.fit is None:
        return False
    told, rounding = seen.fit, OF_ROUNDING * norm
    if told.rest > LIMIT:
        # It grows as a loss falls, unless there was none but for rounding.
        was_exact = rest < OF_ROUNDING and norm > 0.0
        is_exact = not (seen.is_half or seen.may_be_random)
        return was_exact and is_exact and told.rest * told.norm > rounding
    off = [told.off(seen.shares.get(unit, (1.0, 1.0)), rounding) for unit in live]
    return min(off, default=0.0) > CLEARLY + told.near
