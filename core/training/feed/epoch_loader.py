"""The order of the data: a function of (seed, epoch), and re-entered at any batch."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
    default_convert,
)

from training.errors import ConfigError
from training.feed.loader_parts import INSIDE, parts_of
from training.feed.permutation import Permutation
from training.feed.sample_seeds import (
    ExposeUserDataset,
    SeededOrder,
    SeededSamples,
    apart,
    apart_from,
    drawing_from,
    draws_nothing,
    epoch_parts,
    epoch_seed,
    set_epoch,
)
from training.feed.workers import Issued, Watched, draw_as_if_new, require_reached
from training.signals.shield import iterate_shielded

log = logging.getLogger(__name__)


def refuse_one_shot(dataloader: Any, name: str) -> None:
    """Raise ``ConfigError`` for what cannot be iterated once an epoch."""
    if not isinstance(dataloader, Iterable):
        raise ConfigError(
            f"{name} is a {type(dataloader).__name__}, which cannot be iterated; pass "
            "a DataLoader or a list of batches"
        )
    parts = {name: (dataloader, "a DataLoader")}
    for sampler in samplers_of(dataloader):
        # A class of samplers may go back to its beginning in __iter__.
        if not isinstance(sampler, Sampler):
            parts[f"a sampler of {name}"] = sampler, "a list of indices"
    for what, (part, way) in parts.items():
        if isinstance(part, Iterator):
            raise ConfigError(
                f"{what} is an iterator ({type(part).__name__}), exhausted after one "
                f"epoch; pass something that can be iterated again, such as {way}"
            )


#: What is said of a data set in new workers that has no ``set_epoch``.
UNTOLD = "; what its dataset counts by itself begins anew: give it a set_epoch"
#: Samplers whose only randomness is the generator they are given.
PLAIN_SAMPLERS = (
    BatchSampler,
    SequentialSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    DistributedSampler,
    Permutation,
)


class EpochLoader:
    """Iterate a loader once an epoch, in an order that (seed, epoch) alone decides.

    A ``DataLoader`` whose sampler shuffles without a generator of its own gets one,
    seeded for each epoch. A generator that the user passed is left in charge; a
    checkpoint holds its state at the epoch's start, between two epochs as it is. A
    map-style dataset that may draw random numbers draws them from (seed, epoch,
    index), in whichever process. ``set_epoch`` is called where a part offers it;
    workers that persist begin anew where they would not hear of it. A loader with
    ``state_dict`` and ``load_state_dict`` restores itself.

    Args:
        loader: a ``DataLoader`` or any re-iterable of batches.
        seed: the run's seed.
        users: what the user passed, which ``loader`` may read unseen; None: that.
    Attributes:
        has_state: whether the loader saves and restores itself.
        own_generators: what we have given to samplers that had none.
        generators: those that the user passed, which checkpoints hold.
        whole: where the batch that came last is one process's part and the undivided
            one is here, that; else None.
        stands_in: whether the batch that came last only stands in for an empty part.
    """

    whole: Any = None
    stands_in = False

    def __init__(self, loader: Iterable[Any], seed: int, users: Any = None) -> None:
        refuse_one_shot(loader, "train_dataloader")
        self.loader = loader
        self.seed = self.drawn_seed = seed
        self.has_state = _has_state(loader)
        is_all = users is None or users is loader or self.has_state
        self._loaders = [loader] if is_all else [loader, users]
        self.own_generators, self.generators = _generators_in(self._loaders)
        #: What is iterated: ``loader``, or a copy that knows what it reads.
        self.reading = _seeded(loader, seed)
        self._loader_states: dict[int, Any] = {}
        #: The batches of the current epoch, where they come from indices.
        self.watched: Watched | None = None
        self.unwatched: Any = None  # what reads them where they do not
        #: ``generator_states`` when the current epoch began; what a checkpoint inside
        #: of it needs besides (seed, epoch, batch).
        self.epoch_state: list[torch.Tensor] = []
        if not self.is_exact:
            log.warning(
                "train_dataloader%s is a %s, which can neither skip nor tell its "
                "position: a resume inside an epoch will read and drop the batches "
                "before it and may not be exact; a DataLoader over a map-style dataset "
                "is, as is a loader with state_dict and load_state_dict",
                ", as wrap_dataloader returned it," if not is_all else "",
                type(loader).__name__,
            )
        parts = [] if self.is_exact else self.parts()
        loaders = [each for each in parts if isinstance(each, DataLoader)]
        # Their own: a loader of another library may show that of one inside.
        self._lasting = [o for o in loaders if vars(o).get("persistent_workers")]
        if self._lasting:
            told = [each for o in self._lasting for each in epoch_parts(o)]
            log.warning(
                "train_dataloader gets new workers in each epoch, persistent or not: "
                "only those of a plain DataLoader over a map-style dataset hear of "
                "it%s",
                "" if any(hasattr(each, "set_epoch") for each in told) else UNTOLD,
            )

    @property
    def is_exact(self) -> bool:
        """Whether a resume inside an epoch is known to see the very same batches."""
        is_plain = isinstance(self.loader, (list, tuple))
        return is_plain or can_skip(self.loader) or self.has_state

    @property
    def issued(self) -> Any:
        """The indices of the samples in the batch that came last, where known."""
        if self.watched is None or self.reading.batch_sampler is None:
            return None
        return self.watched.latest

    def generator_states(self) -> list[torch.Tensor]:
        """Return the states as they are now of the generators that the user passed."""
        return [generator.get_state() for generator in self.generators]

    def start(
        self,
        epoch: int,
        skip: int = 0,
        state: list[torch.Tensor] | None = None,
        loader_state: Any = None,
    ) -> Iterator[Any]:
        """Return the batches of ``epoch`` (from 0) without the first ``skip``.

        Args:
            epoch: completed epochs before this one.
            skip: batches to leave out, without loading them where that can be done.
            state: of the user's generators, to begin this epoch with in a resumed run.
            loader_state: what ``loader_state(skip)`` returned in that run.
        """
        # Ours are functions of (seed, epoch): seeded anew, and in no checkpoint.
        for generator in self.own_generators:
            generator.manual_seed(epoch_seed(self.seed, epoch))
        # Those of the user have a history: they go on from the states saved.
        for generator, saved in zip(self.generators, state or [], strict=False):
            generator.set_state(saved)
        self.unwatched = None  # else its workers live until the new ones do
        # Before the iterator is made: that draws from them already.
        self.epoch_state = self.generator_states()
        loader: Any = self.loader
        if not skip and loader_state is not None and not self.generators:
            loader.load_state_dict(loader_state)  # as it was when the epoch was set
        for part in self.parts():
            set_epoch(part, epoch)
        for each in self._lasting:
            each._iterator = None  # ends them
        if self.reading is not self.loader:
            _begin(self.reading, epoch)
        with drawing_from(epoch_seed(self.seed, epoch)):
            return self._iterate(epoch, skip, loader_state)

    def loader_state(self, batch: int) -> Any:
        """Return the loader's own state after ``batch`` batches, None if it has none.

        After 0 batches it is that from the end of the epoch before.
        The loader itself may be ahead: the next batch is fetched before it is due.
        """
        return self._loader_states.get(batch)

    def parts(self) -> Collection[Any]:
        """Return all that may tell an order, each once; a data set may choose rows."""
        return {id(p): p for w in self._loaders for p in parts_of(w, INSIDE)}.values()

    def _iterate(self, epoch: int, skip: int, loader_state: Any) -> Iterator[Any]:
        if self.has_state:
            return self._iterate_stateful(epoch, skip, loader_state)
        loader: Any = self.reading
        if can_skip(loader):
            issued, rest = _indices_of(loader), loader
            if skip:  # no worker of it persists: the next epoch is read whole
                rest = copied(loader, loader.dataset, _Rest(issued, skip), False)
            # As a new iterator would: the order is drawn from what comes after.
            draw_as_if_new(rest)
            # Without workers the samples would draw from what dropout draws from.
            is_apart = not loader.num_workers and type(loader.dataset) is SeededSamples
            # First this one, too: while workers begin, one may be lost already.
            self.watched = Watched(rest, issued, skip)
            if is_apart:
                return self.watched.begin(lambda: apart(lambda: iter(rest)))
            return self.watched.begin(lambda: iterate_shielded(rest))
        # Neither an index nor a state leads there: every batch is loaded again. What
        # wraps another loader mostly draws the order for its first one, and no more.
        self.unwatched = iterator = iter(loader)
        seed = epoch_seed(self.drawn_seed, epoch)
        left: list[Iterator[Any]] = []
        drawing = apart_from(seed, lambda: iterator, left)
        batches = itertools.chain.from_iterable(itertools.chain([drawing], left))
        # Those of a list are there: to pass them by is nothing to warn of.
        level = logging.DEBUG if self.is_exact else logging.WARNING
        _read_and_drop(batches, skip, level)
        return batches

    def _iterate_stateful(
        self, epoch: int, skip: int, loader_state: Any
    ) -> Iterator[Any]:
        loader: Any = self.loader
        if skip and loader_state is not None:
            loader.load_state_dict(loader_state)
        self.unwatched = batches = iter(loader)
        if loader_state is None:  # it had none when the run was saved
            _read_and_drop(batches, skip, logging.WARNING)
        elif not skip:

            def anew() -> Iterator[Any]:
                with drawing_from(epoch_seed(self.seed, epoch)):
                    self.unwatched = iter(loader)
                    return self.unwatched  # type: ignore[no-any-return]

            batches = _or_anew(batches, anew)

        def tracked() -> Iterator[Any]:
            for number, batch in enumerate(batches, skip + 1):
                # Of three batches: the copy to the device is one ahead of the boundary.
                self._loader_states[number] = loader.state_dict()
                self._loader_states.pop(number - 3, None)
                yield batch
            self._loader_states[0] = loader.state_dict()

        if loader_state is None and not skip:
            loader_state = self._loader_states.get(0)
        self._loader_states.clear()
        if loader_state is not None:  # the run may stop before the first batch
            self._loader_states[skip] = loader_state
        return tracked()


def _or_anew(
    batches: Iterator[Any], anew: Callable[[], Iterator[Any]]
) -> Iterator[Any]:
    """Yield ``batches``, or those of ``anew`` where the state was that of the end."""
    is_empty = True
    for batch in batches:
        is_empty = False
        yield batch
    if is_empty:
        yield from anew()


class _Rest(Sampler[Any]):
    """What ``indices`` yields after the first ``skip``."""

    def __init__(self, indices: Iterable[Any], skip: int) -> None:
        self.indices = indices
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.indices), self.skip, None)


def _read_and_drop(batches: Iterator[Any], skip: int, level: int) -> None:
    if skip:
        log.log(
            level, "reading and dropping the epoch up to batch %d, done before", skip
        )
        require_reached(skip, sum(1 for _ in itertools.islice(batches, skip)))


def can_skip(loader: Any) -> bool:
    """Whether it iterates over its sampler; a subclass may do otherwise."""
    return type(loader) is DataLoader and not isinstance(
        loader.dataset, IterableDataset
    )


def _has_state(loader: Any) -> bool:
    # The protocol of torchdata's StatefulDataLoader; one of accelerate may be without.
    has_state = getattr(loader, "use_stateful_dataloader", True)
    return has_state and all(hasattr(loader, f"{n}state_dict") for n in ("", "load_"))


def _seeded(loader: Any, seed: int) -> Any:
    """Return a loader of the same batches whose randomness (seed, epoch) decides."""
    if not can_skip(loader):
        return loader
    if not loader.in_order:
        log.warning(
            "train_dataloader has in_order=False, and is read in order: which batches "
            "came first would be chance, and a resumed run could not tell what is left"
        )
    dataset = loader.dataset
    # A collate function may draw, too; then the seeds of its samples decide.
    is_known = getattr(dataset, "is_deterministic", False) or (
        loader.collate_fn in (default_collate, default_convert)
    )
    lasts = loader.persistent_workers
    # Workers that persist hear of an epoch by what is wrapped around the data set.
    is_told = lasts and any(hasattr(each, "set_epoch") for each in epoch_parts(loader))
    if is_told or not (is_known and draws_nothing(dataset)):
        dataset = SeededSamples(dataset, seed, loader.collate_fn, is_shared=lasts)
    indices = _indices_of(loader)
    # A sampler that is not known may draw from the global generators.
    if any(type(each) not in PLAIN_SAMPLERS for each in samplers_of(loader)):
        indices = SeededOrder(indices, seed)
    issued = Issued(indices, loader)
    reading = copied(loader, dataset, issued, lasts)
    if dataset is not loader.dataset:
        reading.worker_init_fn = ExposeUserDataset(loader.worker_init_fn)
    return reading


def _begin(loader: Any, epoch: int) -> None:
    if isinstance(loader.dataset, SeededSamples):
        loader.dataset.begin(epoch)
    indices = getattr(_indices_of(loader), "indices", None)
    if isinstance(indices, SeededOrder):
        indices.epoch = epoch


def _indices_of(loader: Any) -> Any:
    """Return what yields indices: of batches, or of samples without batching."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def copied(loader: Any, dataset: Any, indices: Any, persistent_workers: bool) -> Any:
    """Return ``loader`` with other data and indices: neither can be set again."""
    other = copy.copy(loader)
    parts = {"dataset": dataset, "persistent_workers": persistent_workers}
    parts["sampler" if loader.batch_sampler is None else "batch_sampler"] = indices
    # in_order: else nobody could tell which batches are left.
    vars(other).update(parts, in_order=True, _iterator=None)
    return other


def samplers_of(loader: Any) -> list[Any]:
    """Return the samplers inside a loader and one another, outermost first."""
    return parts_of(loader)[1:]


class _Given(torch.Generator):
    """A generator of ours, which a later run of the same loader must know as such."""


def _generators_in(
    loaders: Iterable[Any],
) -> tuple[list[torch.Generator], list[torch.Generator]]:
    """Give shuffling samplers without a generator one; return (ours, the user's)."""
    # By identity: a loader and its sampler mostly share one.
    found: dict[int, torch.Generator] = {}
    for loader in loaders:
        for part in parts_of(loader):
            generator = getattr(part, "generator", loader)
            if generator is None and part is not loader:
                part.generator = generator = _Given()
            if isinstance(generator, torch.Generator):
                found[id(generator)] = generator
    all_of = found.values()
    users = [each for each in all_of if not isinstance(each, _Given)]
    return [each for each in all_of if each not in users], users
