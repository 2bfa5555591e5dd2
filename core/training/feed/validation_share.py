"""Validation batches, divided among processes so that every sample counts once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from torch.utils.data import BatchSampler

from training.errors import DataError
from training.feed.divided_loader import checked, compared_batches, refuse_divided
from training.feed.epoch_loader import can_skip, copied
from training.feed.lost_workers import require_worker
from training.feed.share import Share, sliced
from training.feed.structure import sample_sizes
from training.feed.workers import Issued, draw_as_if_new, end_workers
from training.hardware.rng import load_rng_state, rng_state
from training.hardware.strategy import Strategy
from training.signals.shield import iterate_shielded


class ValidationShare:
    """This process's part of each batch of a validation loader.

    All processes iterate it together, as often as the loader has batches. Batches that
    cannot be sliced go to one process each, in turn. Who has no part of a batch gets
    something to stand in, since others may wait for its forward pass.

    Args:
        loader: the same on all processes.
        strategy: of many processes.
    Attributes:
        samples: in the part that came last, where a sampler tells.
        stands_in: whether that part is to count nothing.
    Raises:
        ConfigError: it would be divided twice.
    """

    def __init__(self, loader: Any, strategy: Strategy) -> None:
        refuse_divided(loader, "val_dataloader")
        self.loader, self.strategy = loader, strategy
        self.samples: int | None = None
        self.stands_in = False
        self._issued: Issued | None = None
        self._reading: Any = loader
        if can_skip(loader) and loader.batch_sampler is not None:
            share = Share(loader.batch_sampler, strategy.rank, strategy.size)
            self._issued = Issued(share, loader)
            parts = loader.dataset, self._issued, loader.persistent_workers
            self._reading = copied(loader, *parts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        with rng_of_main(self.strategy):
            draw_as_if_new(self._reading)
            # Closed where it fails: the error would hold it, and its workers.
            with closing(batches_of(self._reading)) as batches:
                if self._issued is None:
                    yield from self._sliced(batches)
                else:
                    read = self._with_indices(batches, self._issued)
                    yield from checked(read, self.strategy, "val_dataloader")

    @property
    def _iterator(self) -> Any:
        """What its workers that persist are read with, as a ``DataLoader`` has it."""
        return getattr(self._reading, "_iterator", None)

    def end_workers(self, kills: bool = False) -> None:
        """End the workers that persist: nobody else reads with them."""
        if self._reading is not self.loader:
            end_workers(self._reading, kills)

    def _with_indices(
        self, batches: Iterator[Any], issued: Issued
    ) -> Iterator[tuple[Any, Any]]:
        is_plain = type(self.loader.batch_sampler) is BatchSampler
        for number in count():
            batch = next(batches, None)
            part = None if batch is None else issued.at(number)
            if part is None:
                return
            self.stands_in = part.stands_in
            self.samples = len(part) if is_plain else None
            yield batch, part.whole

    def _sliced(self, batches: Iterator[Any]) -> Iterator[Any]:
        rank, size, name = self.strategy.rank, self.strategy.size, "val_dataloader"
        for number, batch in enumerate(compared_batches(batches, self.strategy, name)):
            try:
                part, self.stands_in = sliced(batch, rank, size, name)
            except DataError:
                part, self.stands_in = batch, number % size != rank
            yield part


def share_of(loader: Iterable[Any], strategy: Strategy) -> Iterable[Any]:
    """Return what yields this process's part of each batch; alone, ``loader`` itself.

    Who measures it reads it through ``portions`` and adds up by ``strategy_of``; who
    keeps it, so that its workers persist, calls ``end_workers`` of it in the end, after
    a failure with ``kills``.
    """
    return ValidationShare(loader, strategy) if strategy.is_divided else loader


def batches_of(loader: Any) -> Generator[Any, None, None]:
    """Yield the batches of ``loader``, whose workers may be shielded.

    One that is lost is told of in torch's words, whatever is known of its end first.
    """
    batches = iterate_shielded(loader)
    try:
        yield from batches
    except Exception as error:
        require_worker(batches, error)
        raise


def portions(loader: Iterable[Any]) -> Iterator[tuple[Any, int | None, bool]]:
    """Yield (batch, its samples where known, whether it counts).

    Args:
        loader: any, or what ``share_of`` returned, or has that as its ``loader``.
    """
    share = _share_in(loader)
    if share is None:
        for batch, samples in zip(loader, sample_sizes(loader), strict=False):
            yield batch, samples, True
        return
    for batch in loader:
        yield batch, share.samples, not share.stands_in


def strategy_of(loader: Iterable[Any]) -> Strategy:
    """Return by whom ``loader`` is divided: who adds up what its parts gave."""
    share = _share_in(loader)
    return Strategy() if share is None else share.strategy


@contextmanager
def rng_of_main(strategy: Strategy) -> Iterator[None]:
    """Draw what the main process draws; the others go on where they were before.

    So a sampler that shuffles gives all the same order.
    """
    if not strategy.is_divided:
        yield
        return
    own = rng_state()
    load_rng_state(strategy.on_main(rng_state))
    try:
        yield
    finally:
        if not strategy.is_main:
            load_rng_state(own)


def _share_in(loader: Any) -> ValidationShare | None:
    if isinstance(loader, ValidationShare):
        return loader
    inner = getattr(loader, "loader", None)
    return inner if isinstance(inner, ValidationShare) else None
