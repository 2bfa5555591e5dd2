"""Make a sample's randomness a function of (seed, epoch, index), and of nothing else.

A dataset that draws from the generators of python, numpy or torch then gives the same
sample whichever worker loads it, and whatever was loaded before.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    Sampler,
    StackDataset,
    Subset,
    TensorDataset,
    get_worker_info,
)

from training.feed.loader_parts import parts_of
from training.hardware.rng import seed_host


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the 63-bit seed that stands for (seed, epoch); epochs from 0."""
    # Two odd 64-bit constants (of splitmix64) keep neighbouring pairs far apart.
    mixed = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xBF58476D1CE4E5B9) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63


def draws_nothing(dataset: Any) -> bool:
    """Whether ``dataset`` is known to draw no random number.

    A data set says so itself with the attribute ``is_deterministic``.
    """
    if getattr(dataset, "is_deterministic", False) is True:
        return True
    # Exact types: a subclass may draw in its own __getitem__.
    if type(dataset) is Subset:
        return draws_nothing(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(draws_nothing(part) for part in dataset.datasets)
    return type(dataset) in (TensorDataset, list, tuple)


def set_epoch(part: Any, epoch: int) -> None:
    """Tell ``part`` of a loader the epoch (from 0), if it has a ``set_epoch``."""
    own = getattr(part, "set_epoch", None)
    if callable(own):
        own(epoch)


def epoch_parts(loader: Any) -> list[Any]:
    """Return what workers have of ``loader`` and may tell an epoch to."""
    return parts_of(loader, ("dataset", "collate_fn"))[1:]


def _loads_by_the_batch(dataset: Any) -> bool:
    # torch's own always have the method, and go item by item if no inside has it.
    if type(dataset) is Subset:
        return _loads_by_the_batch(dataset.dataset)
    if type(dataset) is StackDataset:
        parts: Any = dataset.datasets
        named = parts if isinstance(parts, dict) else dict(enumerate(parts))
        return any(map(_loads_by_the_batch, named.values()))
    return hasattr(dataset, "__getitems__")


class SeededSamples(Dataset[Any]):
    """A map-style dataset that seeds the generators before it loads a sample.

    In a worker that persists it also calls ``set_epoch`` of the dataset, of what that
    has inside, and of the collate function: the main process calls its own copies only.

    Args:
        dataset: what is loaded from.
        seed: the run's seed.
        collate_fn: what makes batches of the samples.
        is_shared: whether workers outlive an epoch; then they read it from memory
            that they share with the main process.
    """

    def __init__(
        self, dataset: Any, seed: int, collate_fn: Any, is_shared: bool = False
    ) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self._seed = seed
        self._epoch: int | torch.Tensor = 0
        self._told = 0  # the epoch that this process's copy of the dataset knows
        # A worker that persists has a copy of this object from the first epoch.
        if is_shared:
            zero = torch.zeros((), dtype=torch.int64)
            self._epoch = zero.share_memory_()  # type: ignore[no-untyped-call]
        if _loads_by_the_batch(dataset):
            # On the instance: torch asks with hasattr whether batches load at once.
            self.__getitems__ = self._load_batch

    def begin(self, epoch: int) -> None:
        """Seed the samples of ``epoch`` (from 0), which the dataset knows already."""
        self._told = epoch
        if isinstance(self._epoch, torch.Tensor):
            self._epoch.fill_(epoch)
        else:
            self._epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        self._reseed(index)
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)  # while this is unpickled there is none yet
        return getattr(self.dataset, name)

    def _load_batch(self, indices: list[Any]) -> Any:
        # One call, one seed: the first index stands for the batch.
        self._reseed(indices[0])
        return self.dataset.__getitems__(indices)

    def _reseed(self, index: Any) -> None:
        # Not hash(): of a text it differs from process to process.
        number = index if isinstance(index, int) else zlib.crc32(repr(index).encode())
        epoch = int(self._epoch)
        if epoch != self._told:
            self._told = epoch
            for each in epoch_parts(self):
                set_epoch(each, epoch)
        seed_host(epoch_seed(epoch_seed(self._seed, epoch), number))


class ExposeUserDataset:
    """A ``worker_init_fn`` that lets a worker see the data set that the user made.

    A worker loads from ``SeededSamples``; what is set on ``get_worker_info().dataset``
    is meant for the data set inside.
    """

    def __init__(self, init: Callable[[int], object] | None) -> None:
        self._init = init

    def __call__(self, worker: int) -> None:
        """Put the user's data set in place, then do what the user asked for."""
        info: Any = get_worker_info()
        # Frozen, as torch means it to stay the one that the loader was given.
        object.__setattr__(info, "dataset", info.dataset.dataset)
        if self._init is not None:
            self._init(worker)


class SeededOrder(Sampler[Any]):
    """Indices of a sampler that may draw from the global generators.

    Each pass draws from generators seeded by (seed, epoch), and leaves those of the run
    as they were.
    """

    def __init__(self, indices: Iterable[Any], seed: int) -> None:
        self.indices = indices
        self.epoch = 0
        self._seed = seed

    def __len__(self) -> int:
        return len(self.indices)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        seed = epoch_seed(self._seed, self.epoch)
        yield from apart_from(seed, lambda: iter(self.indices))


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let the global CPU generators draw from ``seed``, and the run draw on as it was.

    Making a DataLoader's iterator draws its workers' seed from torch's.
    """
    outside = _states()
    try:
        seed_host(seed)
        yield
    finally:
        _set_states(outside)


def apart(
    make: Callable[[], Iterator[Any]],
    own: list[Any] | None = None,
    rest: list[Iterator[Any]] | None = None,
) -> Iterator[Any]:
    """Yield what ``make()`` yields, drawing from generator states of its own.

    Costs about 0.1 ms an item; the run's generators never move.

    Args:
        make: returns the iterator; called with the first item.
        own: states to begin with; None: those of the run at the first item.
        rest: gets the iterator where an item drew nothing: this ends there, and what is
            left is to be read at no cost.
    """
    iterator: Iterator[Any] | None = None
    while True:
        # At each item: what the run drew meanwhile must not be heard in here.
        outside = _states()
        before = own
        try:
            if own is not None:
                _set_states(own)
            if iterator is None:
                iterator = make()
            item = next(iterator)
            own = _states()
        except StopIteration:
            return
        finally:
            # Also where loading fails: its error leaves the run as it was.
            _set_states(outside)
        yield item
        if rest is not None and before is not None and _are_same(before, own):
            rest.append(iterator)
            return


def apart_from(
    seed: int,
    make: Callable[[], Iterator[Any]],
    rest: list[Iterator[Any]] | None = None,
) -> Iterator[Any]:
    """Return ``apart`` of ``make()``, called at once, both drawing from ``seed``."""
    with drawing_from(seed):
        iterator = make()
        own = _states()
    return apart(lambda: iterator, own, rest)


def _states() -> list[Any]:
    numpy = sys.modules.get("numpy")
    states = [random.getstate(), torch.get_rng_state()]
    return states if numpy is None else [*states, numpy.random.get_state()]


def _are_same(some: list[Any], others: list[Any]) -> bool:
    if some[0] != others[0] or not torch.equal(some[1], others[1]):
        return False
    # Of numpy, if it is loaded: (kind, words, position, ...) on both sides.
    own = [(words.tobytes(), rest) for _, words, *rest in (*some[2:], *others[2:])]
    return own[:1] == own[1:]


def _set_states(states: list[Any]) -> None:
    random.setstate(states[0])
    torch.set_rng_state(states[1])
    if len(states) > 2:
        sys.modules["numpy"].random.set_state(states[2])
