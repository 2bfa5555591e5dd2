"""Parts of a batch that the loader's own collate function makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.weighing.candidates import Counts
from training.weighing.cut import Cut, shares_of, some_of, turns_of
from training.weighing.structure import CannotCutError, TooFewError


class Collated:
    """Collate rows of the data set again, as the loader does.

    A batch of one row is joined by the three that follow it in the data set.

    Args:
        loader: torch's, over a map-style set.
        indices: of the batch.
        counts: counts units.
    Raises:
        CannotCutError: there is no such loader, or there are no two rows.
    """

    title = "collating rows again"

    def __init__(self, loader: Any, indices: Any, counts: Counts) -> None:
        if indices is None or getattr(loader, "collate_fn", None) is None:
            raise CannotCutError("the loader does not tell which rows are in a batch")
        dataset, self._collate = loader.dataset, loader.collate_fn
        fetch = getattr(dataset, "__getitems__", None)
        numbers = list(indices)
        if len(numbers) == 1 and isinstance(numbers[0], int):
            more = range(numbers[0] + 1, numbers[0] + min(4, len(dataset)))
            numbers += [number % len(dataset) for number in more]
        if len(numbers) < 2:
            raise TooFewError("the batch has one row")
        self._rows = fetch(numbers) if fetch else [dataset[each] for each in numbers]
        self._counts = counts
        self.whole = self._collated(range(len(numbers)))
        self.amounts = counts.all(self.whole, len(numbers))
        self.num_turns = turns_of(len(numbers))
        self._order = list(range(len(numbers)))

    def cut(self, turn: int) -> Cut:
        """Return the parts; another cut for each ``turn`` below ``num_turns``."""
        chosen = sorted(some_of(self._order, turn))
        rest = [row for row in self._order if row not in chosen]
        parts = [self._collated(chosen), self._collated(rest)]
        sizes = len(chosen), len(rest)
        shares = shares_of(self.amounts, parts, sizes, self._counts)
        return Cut((parts[0], parts[1]), shares, sizes)

    def _collated(self, rows: Sequence[int]) -> Any:
        return self._collate([self._rows[row] for row in rows])
