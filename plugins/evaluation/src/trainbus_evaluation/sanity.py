"""The first batches of a loader, looked at before training and without a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from training.plugin import iterate_shielded, shielded


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


def _apart(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same batches whose iterators are its own."""
    apart = copy.copy(loader)
    vars(apart).update(  # a DataLoader forbids to set some of them
        _iterator=None,
        persistent_workers=False,
        num_workers=min(loader.num_workers, 1),
    )
    return apart


def way_to_gradients(error: Exception) -> str:
    """Return how a loss comes to the gradients that it lacked; "" for other errors."""
    if "does not require grad" not in str(error):
        return ""
    return (
        "evaluations record no gradients: put what a step_fn differentiates below "
        "torch.enable_grad(), and let it step nothing while model.training is False"
    )
