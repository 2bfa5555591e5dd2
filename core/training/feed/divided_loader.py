"""The order of the data where many processes read it, each its own part."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import DistributedSampler

from training.errors import ConfigError, DataError
from training.feed.epoch_loader import EpochLoader, can_skip, samplers_of
from training.feed.sample_seeds import SeededOrder, apart_from, epoch_seed
from training.feed.share import Share, digest, sliced
from training.hardware.rng import rank_seed
from training.hardware.strategy import Strategy

#: In place of a batch where there is none.
_NONE: Any = object()


def epoch_loader(
    loader: Iterable[Any], seed: int, strategy: Strategy, users: Any = None
) -> EpochLoader:
    """Return what iterates ``loader``, or this process's part of each of its batches.

    The strategy says which process this is, and whose part its loader yields.

    Raises:
        ConfigError: it would be divided twice.
    """
    if not strategy.is_divided:
        return EpochLoader(loader, seed, users)
    if strategy.data == "own":
        return OwnBatches(loader, seed, strategy, users)
    refuse_divided(loader, "train_dataloader")
    has_indices = can_skip(loader) and loader.batch_sampler is not None  # type: ignore[attr-defined]
    kind = SharedIndices if has_indices else SlicedBatches
    return kind(loader, seed, strategy, users)


def refuse_divided(loader: Any, name: str) -> None:
    """Raise ``ConfigError`` if a sampler of ``loader`` gives each process its part."""
    if any(isinstance(each, DistributedSampler) for each in samplers_of(loader)):
        raise ConfigError(
            f"{name} has a DistributedSampler, and its batches are divided among the "
            "processes already: leave the sampler out"
            + (", or say data: own" if name == "train_dataloader" else "")
        )


class DividedLoader(EpochLoader):
    """An ``EpochLoader`` of one process's part of each batch."""

    def __init__(
        self, loader: Iterable[Any], seed: int, strategy: Strategy, users: Any
    ) -> None:
        super().__init__(loader, seed, users)
        self._strategy = strategy


def check_same(strategy: Strategy, read: Any, name: str) -> None:
    """Refuse what not all processes read; waits for them, and is the same on all.

    Args:
        strategy: of many processes.
        read: indices or a batch; None where there is no more.
        name: of the loader.
    Raises:
        DataError: they read different things.
    """
    own, size = divmod(digest(read), 2**16), strategy.size
    told = (float(read is not None), *map(float, own), *(float(n * n) for n in own))
    going, *sums = strategy.sum(told)
    own_way = ", or say data: own if each process has its own part"
    way = own_way if name == "train_dataloader" else ""
    if going not in (0, size):
        raise DataError(
            f"{name} ends on {size - going:.0f} of {size} processes while others go "
            "on; they divide its batches: let each of them read the same ones" + way
        )
    # All alike, just where the mean of squares is the square of the mean; halves, so
    # that these numbers are exact.
    if any(size * sums[2 + n] != sums[n] ** 2 for n in range(2)):
        raise DataError(
            f"{name} does not yield the same batches on all {size} processes, which "
            "divide them: let them depend on nothing but the seed" + way
        )


def checked(
    batches: Iterable[tuple[Any, Any]], strategy: Strategy, name: str
) -> Iterator[Any]:
    """Yield batches that all processes divide, given with indices of each as a whole.

    A sampler that nobody seeds mostly shows in the first batch. Those after it cost a
    few us each, and one sum when they end; a reader that leaves off makes none.

    Raises:
        DataError: as ``check_same``; at the first batch, or behind the last one.
    """
    number = code = 0
    for number, (batch, indices) in enumerate(batches, 1):
        if number == 1:
            check_same(strategy, indices, name)
        code = digest([code, digest(indices)])
        yield batch
    check_same(strategy, [number, code] if number else None, name)


def compared_batches(
    batches: Iterable[Any], strategy: Strategy, name: str
) -> Iterator[Any]:
    """Yield batches that all processes divide, each compared as it is read.

    Raises:
        DataError: as ``check_same``; at each batch, or behind the last one.
    """
    for batch in batches:
        check_same(strategy, batch, name)
        yield batch
    check_same(strategy, None, name)


class SharedIndices(DividedLoader):
    """Each process loads its own samples: the indices of each batch are divided."""

    def __init__(
        self, loader: Iterable[Any], seed: int, strategy: Strategy, users: Any
    ) -> None:
        super().__init__(loader, seed, strategy, users)
        outer = self.reading.batch_sampler
        if isinstance(outer.indices, SeededOrder):
            outer = outer.indices
        # Inside of all that counts, seeds and skips batches.
        outer.indices = Share(outer.indices, strategy.rank, strategy.size)

    def _iterate(self, epoch: int, skip: int, loader_state: Any) -> Iterator[Any]:
        batches = self._with_indices(super()._iterate(epoch, skip, loader_state))
        return checked(batches, self._strategy, "train_dataloader")

    def _with_indices(self, batches: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        for batch in batches:
            self.stands_in = self.issued.stands_in
            yield batch, self.issued.whole


class SlicedBatches(DividedLoader):
    """Each process reads all batches, and takes its slice of dimension 0."""

    def start(self, epoch: int, *place: Any, **named: Any) -> Iterator[Any]:
        """Return the parts of the batches, as ``EpochLoader`` does those whole."""
        begin = partial(super().start, epoch, *place, **named)
        if type(self.loader) in (list, tuple):
            # All at once, since they are all here.
            check_same(self._strategy, self.loader, "train_dataloader")
            return self._cut(begin())
        # What is drawn in this process must be the same in all.
        batches = apart_from(epoch_seed(self.seed, epoch), begin)
        return self._cut(compared_batches(batches, self._strategy, "train_dataloader"))

    def _cut(self, batches: Iterator[Any]) -> Iterator[Any]:
        rank, size = self._strategy.rank, self._strategy.size
        for self.whole in batches:
            part, self.stands_in = sliced(self.whole, rank, size, "train_dataloader")
            yield part


class OwnBatches(DividedLoader):
    """Each process's loader yields its own part; who ends early stands in.

    An epoch ends when all have ended: one agreement a batch.
    """

    def __init__(
        self, loader: Iterable[Any], seed: int, strategy: Strategy, users: Any
    ) -> None:
        super().__init__(loader, seed, strategy, users)
        if strategy.rank:  # else all processes would draw the same rows
            self.drawn_seed = rank_seed(seed, strategy.rank)

    def _iterate(self, epoch: int, skip: int, loader_state: Any) -> Iterator[Any]:
        first = skip
        if loader_state is None:
            try:
                length = len(self.loader)  # type: ignore[arg-type]
            except (TypeError, NotImplementedError):
                length = 0  # read from the beginning
            # A part that was over by then: its last batch has to stand in.
            first = min(skip, max(0, length - 1))
        batches = super()._iterate(epoch, first, loader_state)
        return self._until_all_end(batches, skip - first)

    def _until_all_end(self, batches: Iterator[Any], done: int) -> Iterator[Any]:
        spent = deque(itertools.islice(batches, done), maxlen=1)
        last = spent[0] if spent else _NONE
        is_over = False
        while True:
            batch = _NONE if is_over else next(batches, _NONE)
            is_over = batch is _NONE
            is_empty = is_over and last is _NONE
            going, empty = self._strategy.sum([float(not is_over), float(is_empty)])
            if not going:
                return
            if empty:
                raise DataError(
                    f"train_dataloader yields no batch on {empty:.0f} of "
                    f"{self._strategy.size} processes; with data: own each needs one "
                    "at least"
                )
            self.stands_in = is_over
            last = last if is_over else batch
            yield last
