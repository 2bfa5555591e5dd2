"""The first batches of a loader, looked at before training and without a trace."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from training.plugin import (
    batches_of,
    is_same_tensor,
    reading_validation,
    rng_of_main,
    shielded,
    some,
    untouched,
)

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)

#: Bytes of parameters up to which copies are kept for the look.
MOST_BYTES = 2**31


class FirstBatches:
    """Some batches, again and again; whatever else is asked, their loader answers.

    By its name the kernel finds how many samples the sampler gave to each.

    Args:
        loader: where they come from.
        batches: the first of it.
    """

    def __init__(self, loader: Any, batches: list[Any]) -> None:
        self.loader = loader
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python asks for, such as when copying
            return object.__getattribute__(self, name)
        return getattr(self.loader, name)


def first_batches(loader: Iterable[Any], count: int, name: str) -> FirstBatches | None:
    """Return the first ``count`` batches; None for a loader that keeps its position.

    Errors tell its ``name``, which is ``""`` of one alone.

    A loader with workers starts one of them for this, and ends it: the data set of
    this process stays as it is, and so do workers that persist.
    """
    if hasattr(loader, "load_state_dict"):
        return None
    source = _apart(loader) if isinstance(loader, DataLoader) else loader
    with reading_validation(source, name, lambda: None), shielded(source):
        return FirstBatches(loader, list(islice(batches_of(source), count)))


def _apart(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same batches whose iterators are its own."""
    apart = copy.copy(loader)
    vars(apart).update(  # a DataLoader forbids to set some of them
        _iterator=None,
        persistent_workers=False,
        num_workers=min(loader.num_workers, 1),
    )
    return apart


@contextmanager
def without_trace(trainer: Trainer, loader: Iterable[Any]) -> Iterator[None]:
    """Evaluate below this what is only looked at: modes, buffers and draws come back.

    Parameters that move come back, too, unless they are too large for a copy; and they
    are warned of, since evaluations in the run keep no copy.
    """
    state, weigher = trainer.state, trainer.state.weigher
    modules = [trainer.model, *trainer.criterion.held_modules().values()]
    drawn = trainer.criterion.generators.values()
    with (
        rng_of_main(trainer.strategy),
        untouched(modules, loader, keeps_parameters=False, generators=drawn),
        trainer.modes.evaluation(),
    ):
        copies, moved = _copies_of(modules), set()
        state.weigher = copy.copy(weigher)  # what it learns goes with it
        try:
            yield
        finally:
            state.weigher = weigher
            for name, parameter, copied in copies:
                if not is_same_tensor(parameter.detach(), copied):
                    parameter.data.copy_(copied)
                    moved.add(name)
    if moved:
        log.warning(
            "evaluating changes the parameters %s, so that a run that measures more "
            "often, or is resumed, is another one: a step_fn runs in evaluations, too, "
            "and what it does for training belongs below `if model.training:` (and an "
            "embedding with max_norm changes in any forward pass)",
            some(sorted(moved)),
        )


def _copies_of(modules: Iterable[nn.Module]) -> list[tuple[str, nn.Parameter, Tensor]]:
    """Return name, parameter and copy of all; none of what is large, or in parts."""
    named = {p: name for m in modules for name, p in m.named_parameters()}
    is_large = sum(p.numel() * p.element_size() for p in named) > MOST_BYTES
    if is_large or any(type(p) is not nn.Parameter for p in named):
        return []
    return [(name, p, p.detach().clone()) for p, name in named.items()]
