"""A loader of the same batches whose order the seed and the epoch decide."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
    default_convert,
)

from training.feed.loader_parts import indices_of, parts_of, samplers_of
from training.feed.permutation import Permutation
from training.feed.sample_seeds import (
    SeededOrder,
    SeededSamples,
    ShowsOwnDataset,
    draws_nothing,
    told_in,
)
from training.feed.workers import Issued

log = logging.getLogger(__name__)

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


def can_skip(loader: Any) -> bool:
    """Whether it iterates over its sampler; a subclass may do otherwise."""
    return type(loader) is DataLoader and not isinstance(
        loader.dataset, IterableDataset
    )


def seeded(loader: Any, seed: int) -> Any:
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
    is_told = lasts and any(hasattr(each, "set_epoch") for each in told_in(loader))
    if is_told or not (is_known and draws_nothing(dataset)):
        dataset = SeededSamples(dataset, seed, loader.collate_fn, is_shared=lasts)
    indices = indices_of(loader)
    # A sampler that is not known may draw from the global generators.
    if any(type(each) not in PLAIN_SAMPLERS for each in samplers_of(loader)):
        indices = SeededOrder(indices, seed)
    issued = Issued(indices, loader)
    reading = copied(loader, dataset, issued, lasts)
    if dataset is not loader.dataset:
        reading.worker_init_fn = ShowsOwnDataset(loader.worker_init_fn)
    return reading


def begin_epoch(loader: Any, epoch: int) -> None:
    """Let what ``seeded`` has returned draw as in ``epoch``."""
    if isinstance(loader.dataset, SeededSamples):
        loader.dataset.begin(epoch)
    indices = getattr(indices_of(loader), "indices", None)
    if isinstance(indices, SeededOrder):
        indices.epoch = epoch


def copied(loader: Any, dataset: Any, indices: Any, persistent_workers: bool) -> Any:
    """Return ``loader`` with other data and indices: neither can be set again."""
    other = copy.copy(loader)
    parts = {"dataset": dataset, "persistent_workers": persistent_workers}
    parts["sampler" if loader.batch_sampler is None else "batch_sampler"] = indices
    # in_order: else nobody could tell which batches are left.
    vars(other).update(parts, in_order=True, _iterator=None)
    return other


class _Given(torch.Generator):
    """A generator of ours, which a later run of the same loader must know as such."""


def managed_generators(
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
