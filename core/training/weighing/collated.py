"""Parts of a batch that the loader's own collate function makes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader, default_collate, default_convert

from training.feed.structure import CannotCutError, may_be_second, samples_of
from training.signals.shield import iterate_shielded, shielded
from training.weighing.counts import Contents
from training.weighing.cut import ALONE, Way, num_cuts_of, rows_of_parts


class Collated(Way):
    """Collate rows of the data set again, as the loader does.

    Rows are loaded once, in a worker of its own where the loader has workers: a data
    set may hold what only a worker can open. A batch of one row is joined by the three
    that follow it in the data set.

    Args:
        batch: whose indices the sampler issued.
        loader: torch's, over a map-style set.
    Raises:
        CannotCutError: there is no such loader, or there are no two rows.
    """

    title = "collating rows again"

    def __init__(self, batch: Contents, loader: Any) -> None:
        if batch.issued is None or getattr(loader, "collate_fn", None) is None:
            raise CannotCutError("the loader does not tell which rows are in a batch")
        numbers = list(batch.issued)
        if len(numbers) == 1 and isinstance(numbers[0], int):
            total = len(loader.dataset)
            more = range(numbers[0] + 1, numbers[0] + min(4, total))
            numbers += [number % total for number in more]
        size = len(numbers)
        self.num_cuts = num_cuts_of(size, "the batch has one row")
        order, turns = list(range(size)), (*range(self.num_cuts), ALONE)
        cuts = {turn: rows_of_parts(order, turn, size) for turn in turns}
        # All parts at once: else each cut would read the rows in a worker of its own.
        whole, *parts = load(loader, numbers, [order, *chain(*cuts.values())])
        super().__init__(replace(batch, batch=whole))
        self.amounts = batch.counts.all(whole, size)
        each = iter(parts)
        self._cuts = {
            turn: ([next(each) for _ in rows], list(map(len, rows)))
            for turn, rows in cuts.items()
        }

    def _parts(self, turn: int) -> tuple[Sequence[Any], list[int]]:
        return self._cuts[turn]


#: Loader -> what was found for it: each time three rows would be read again.
_GROWS_SECOND: WeakKeyDictionary[Any, bool | None] = WeakKeyDictionary()


def collates_by_itself(loader: Any) -> bool:
    """Whether ``loader`` has a collate function that is not torch's own."""
    collate = getattr(loader, "collate_fn", None)
    return collate not in (None, default_collate, default_convert)


def holds_samples_second(batch: Contents, loader: Any) -> bool:
    """Whether dimension 1 of ``batch`` holds its samples, as in (time, sample).

    It is known how many they are. Where dimension 0 is as long by chance, or
    samples may have been left out of it, one, two and three rows are collated, once for
    each loader: the dimension that grows with them holds samples. Torch's own function
    stacks in 0.

    Args:
        batch: if it was evaluated, its rows are others; any rows tell.
        loader: as for ``Collated``.
    """
    samples = batch.samples or 0
    if not may_be_second(batch.batch, samples):
        return False
    if not collates_by_itself(loader):
        return samples_of(batch.batch) != samples
    told = _GROWS_SECOND.get(loader) if isinstance(loader, Hashable) else None
    if told is None:
        numbers = range(samples) if batch.issued is None else batch.issued
        told = _grows_second(loader, list(numbers)[:3])
        if samples > 1 and isinstance(loader, Hashable):  # a row alone tells little
            _GROWS_SECOND[loader] = told
    return samples_of(batch.batch) != samples if told is None else told


def _grows_second(loader: Any, numbers: list[Any]) -> bool | None:
    """Return whether dimension 1 grows with rows; None: that cannot be told."""
    sizes = range(1, len(numbers) + 1)
    try:
        parts = load(loader, numbers, [range(size) for size in sizes])
    except Exception:  # of a data set or function of the user's own
        return None
    both = list(zip(parts, sizes, strict=True))
    is_first = all(samples_of(part) == size for part, size in both)
    return not is_first and all(may_be_second(part, size) for part, size in both)


def _collated(
    collate: Callable[[list[Any]], Any],
    choices: Sequence[Sequence[int]],
    rows: list[Any],
) -> list[Any]:
    """Return a batch for each of ``choices``; also called in a worker."""
    return [collate([rows[n] for n in chosen]) for chosen in choices]


def load(
    loader: Any, numbers: list[Any], choices: Sequence[Sequence[int]]
) -> list[Any]:
    """Return a batch for each of ``choices`` from the rows ``numbers``."""
    apart = DataLoader(
        loader.dataset,
        batch_sampler=[numbers],
        collate_fn=partial(_collated, loader.collate_fn, choices),
        num_workers=min(1, loader.num_workers),
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),  # it draws the seed of the worker
    )
    with shielded(apart):
        (batches,) = iterate_shielded(apart)
    return batches  # type: ignore[no-any-return]
