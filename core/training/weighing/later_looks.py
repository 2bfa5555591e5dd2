"""A unit that the first batches told is looked at again where later ones may differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from training.feed.structure import fields_of, has_items
from training.weighing.counts import IGNORED, has_classes, labels_of, num_kept
from training.weighing.fit import LIMIT
from training.weighing.subject import Look

#: The unit is looked at again 1, 2, 4, 8 and so on batches later, this at most.
LAST_LOOK = 4096
#: Levels of a batch that are looked into: an object may lead back to itself.
LEVELS = 8
#: Shares that are off by more are not those of the unit, whatever the rounding.
CLEARLY = 0.01
#: Rounding errors relative to the norm of the first gradients: 1e-7 in fp32, later up
#: to 2e-5. They stay as large while gradients shrink, and then hide smaller rests.
OF_ROUNDING = 1e-4


class LaterLooks:
    """Tells which batches to look at again.

    The first batch may have fitted a unit by chance: where the loss has weights for
    classes that it did not hold, or takes labels from an entry of another name, all of
    which counted. So of batches with a -100 among whole numbers that are not known to
    be labels the first, the second, the fourth and so on are looked at, too.

    Args:
        number: as below.
        num_ignoring: as below.
    Attributes:
        number: batches since the unit was found; None: there is nothing to look at.
        num_ignoring: of them those with such a -100.
    """

    def __init__(self, number: int | None = None, num_ignoring: int = 0) -> None:
        self.number, self.num_ignoring = number, num_ignoring
        #: What leads to whole numbers that may be -100; None: the next batch tells.
        self._ways: set[_Way] | None = None

    def is_due(self, batch: Any = None) -> bool:
        """Count a batch; return whether it is one to look at.

        Args:
            batch: on the host; None: a part, which differs from process to process.
        """
        if self.number is None:
            return False
        self.number += 1
        is_due = self.number.bit_count() == 1  # 1, 2, 4 and so on
        if self._ways is None:
            known = has_classes(labels_of(batch))
            found = () if known else _signed_in(batch)
            self._ways = {way[:n] for way, _ in found for n in range(len(way) + 1)}
        signed = _signed_in(batch, self._ways) if self._ways else ()
        if any(_ignores(each) for _, each in signed):
            self.num_ignoring += 1
            is_due |= self.num_ignoring.bit_count() == 1
        if self.number >= LAST_LOOK:
            self.number = None
        return is_due


#: Names that lead to an entry of a batch; the items of a list are all alike.
_Way = tuple[str, ...]


def _signed_in(
    value: Any, ways: set[_Way] | None = None, way: _Way = ()
) -> Iterator[tuple[_Way, Tensor]]:
    """Yield the tensors of whole numbers that may be -100, after what leads there.

    Args:
        value: a batch, or an entry.
        ways: to look into, as texts and the like need not be again; None: all.
        way: what leads to ``value``.
    """
    if isinstance(value, Tensor):
        # Not on a card, where each batch would wait for it.
        is_plain = value.is_cpu and value.ndim and value.layout is torch.strided
        if is_plain and has_classes(value) and value.dtype.is_signed:
            yield way, value
        return
    entries: Iterable[tuple[str, Any]]
    if has_items(value):
        entries = (("", item) for item in value)
    else:
        entries = (fields_of(value) or {}).items()
    for name, item in entries if len(way) < LEVELS else ():
        if ways is None or (*way, name) in ways:
            yield from _signed_in(item, ways, (*way, name))


def _ignores(numbers: Tensor) -> bool:
    return num_kept(numbers, IGNORED) < numbers.numel()


def is_belied(
    units: Iterable[str], look: Look, residual: float = 1.0, norm: float = 0.0
) -> bool:
    """Return whether a later batch tells clearly that it is none of the units.

    Args:
        units: names.
        look: what the batch tells.
        residual: the largest of the first batches.
        norm: of their gradients the largest 2-norm; 0: not known.
    """
    if not look.is_none or look.fit is None:
        return False
    told, rounding = look.fit, OF_ROUNDING * norm
    if told.residual > LIMIT:
        # Normal as a loss falls; but not where the first batches left only rounding.
        was_exact = residual < OF_ROUNDING and norm > 0.0
        is_exact = not (look.is_half or look.may_be_random)
        return was_exact and is_exact and told.residual * told.norm > rounding
    off = [told.off(look.shares.get(unit, (1.0, 1.0)), rounding) for unit in units]
    return min(off, default=0.0) > CLEARLY + told.near
