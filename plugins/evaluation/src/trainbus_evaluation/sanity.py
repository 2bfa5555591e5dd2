"""The first batches of a loader, looked at before training and without a trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from training.plugin import (
    generators_in,
    iterate_shielded,
    load_rng_state,
    rng_state,
    shielded,
)


class FirstBatches:
    """Some batches, again and again; whatever else is asked, their loader answers.

    Args:
        loader: where they come from.
        batches: the first of it.
    """

    def __init__(self, loader: Any, batches: list[Any]) -> None:
        self._loader = loader
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python asks for, such as when copying
            return object.__getattribute__(self, name)
        return getattr(self._loader, name)


def first_batches(loader: Iterable[Any], count: int) -> FirstBatches | None:
    """Return the first ``count`` batches; None for a loader that keeps its position.

    A loader with workers starts one of them for this, and ends it: the data set of
    this process stays as it is, and so do workers that persist.
    """
    if hasattr(loader, "load_state_dict"):
        return None
    source = _apart(loader) if isinstance(loader, DataLoader) else loader
    with shielded(source):
        return FirstBatches(loader, list(islice(iterate_shielded(source), count)))


@contextmanager
def without_trace(roots: Iterable[nn.Module], loader: Any) -> Iterator[None]:
    """Put back afterwards what an evaluation may move.

    That is: the global random generators, those that the modules, the loader, its
    samplers and its data set keep, modules' modes, and buffers. One read for each
    buffer, which is a sync on CUDA.

    Args:
        roots: the model, and what a loss holds beside it; parts are included.
        loader: what is read.
    """
    drawn = rng_state()
    modules = list(dict.fromkeys(part for root in roots for part in root.modules()))
    parts = [*_parts_of(loader), *modules]
    generators = [_restorer(g) for part in parts for g in generators_in(part).values()]
    modes = [(module, module.training) for module in modules]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for restore in generators:
            restore()
        load_rng_state(drawn)
        for module, training in modes:
            module.training = training
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            if not torch.equal(buffer, before):
                buffer.copy_(before)


def _apart(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same batches whose iterators are its own."""
    apart = copy.copy(loader)
    vars(apart).update(  # a DataLoader forbids to set some of them
        _iterator=None,
        persistent_workers=False,
        num_workers=min(loader.num_workers, 1),
    )
    return apart


def _parts_of(loader: Any) -> list[Any]:
    """Return the loader, and what of it may keep random generators."""
    parts = [loader]
    for part in parts:  # grows: data sets and samplers may stand in one another
        for name in ("dataset", "sampler", "batch_sampler"):
            inner = getattr(part, name, None)
            if inner is not None and all(inner is not known for known in parts):
                parts.append(inner)
    return parts


def _restorer(generator: Any) -> Callable[[], object]:
    """Return what puts ``generator`` back where it is now."""
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, torch.Generator) or hasattr(generator, "set_state"):
        return partial(generator.set_state, generator.get_state())
    bits = generator.bit_generator  # numpy's newer one
    return partial(setattr, bits, "state", bits.state)
