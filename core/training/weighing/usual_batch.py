"""The usual batch, counted in a few calls: what a step pays for weights.

It is a plain tuple, list (what torch collates pairs to) or dict of tensors, with its
labels on the host. Anything else is asked of the ``Weigher``, and so is whatever makes
a batch differ from those before it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isclose
from typing import Any

import torch
from torch import Tensor

from training.weighing.counts import FEW, Counts, num_kept
from training.weighing.known_units import KnownUnits

#: (batch on the host, what has ``issued`` it) -> what it counts in its window.
Weigh = Callable[[Any, Any], float]
#: (labels, their shape, batch, what has ``issued`` it) -> how many; None: ask
#: ``Counts``. Each look at a tensor costs 0.1 us or more: the shape is read once.
_Counter = Callable[[Tensor, torch.Size, Any, Any], float | None]


def usual_weight(counts: Counts, known: KnownUnits, ask: Weigh) -> Weigh:
    """Return the function that weighs a usual batch which goes with those before.

    Args:
        counts: counts all batches.
        known: of the unit; where none is, samples count.
        ask: weighs any other batch.
    """
    is_one, scale = len(known.possible) < 2, known.scale
    possible = {known.unit or "samples": 1.0} if is_one else known.possible
    (first, before), *others = (
        (_counter(counts, each), amount) for each, amount in possible.items()
    )

    def weigh(batch: Any, source: Any) -> float:
        kind = type(batch)  # neither has room for a ``loss_weight`` of its own
        if kind is tuple or kind is list:
            labels = batch[-1] if len(batch) > 1 else None
        else:
            labels = batch.get("labels") if kind is dict else None
        if type(labels) is not Tensor or not (shape := labels.shape):
            return ask(batch, source)
        whole = first(labels, shape, batch, source)
        if whole is None:
            return ask(batch, source)
        for count, amount in others:
            own = count(labels, shape, batch, source)
            if own is None:
                return ask(batch, source)
            if own * before != whole * amount and not isclose(
                own * before, whole * amount
            ):
                return ask(batch, source)
        return scale * whole

    if list(possible) != ["labels"]:
        return weigh
    ignored = counts.ignored

    def weigh_pair(batch: Any, source: Any) -> float:
        """Count the few labels of a pair in one function: each one more is felt."""
        kind = type(batch)
        if (kind is tuple or kind is list) and len(batch) > 1:
            labels = batch[-1]
            if type(labels) is Tensor and labels.dtype is torch.int64:
                shape = labels.shape
                if len(shape) == 1 and labels.is_cpu:
                    if shape[0] <= FEW:
                        return scale * (shape[0] - labels.tolist().count(ignored))
                    return scale * num_kept(labels, ignored)
        return weigh(batch, source)

    return weigh_pair


def _counter(counts: Counts, unit: str) -> _Counter:
    """Return what counts one unit."""
    if unit in ("samples", "sum"):
        return _samples
    if unit == "elements":
        return lambda labels, shape, batch, source: shape.numel()
    if unit not in ("labels", "shifted_labels"):
        return lambda labels, shape, batch, source: counts(
            *(unit, batch, None if source.issued is None else len(source.issued)),
            source.issued,
        )
    ignored, is_shifted = counts.ignored, unit == "shifted_labels"

    def count(
        labels: Tensor, shape: torch.Size, batch: Any, source: Any
    ) -> float | None:
        if labels.dtype is not torch.int64 or not labels.is_cpu:
            return None
        is_flat = len(shape) == 1
        if is_shifted:
            return None if is_flat else num_kept(labels.numpy()[:, 1:], ignored)
        if is_flat and shape[0] <= FEW:  # as there, but in no call more
            return shape[0] - labels.tolist().count(ignored)
        return num_kept(labels, ignored)

    return count


def _samples(
    labels: Tensor, shape: torch.Size, batch: Any, source: Any
) -> float | None:
    """Return the rows, or what the sampler issued where they may be something else."""
    issued = source.issued
    if issued is not None and len(shape) > 1:
        return len(issued)
    rows = shape[0]
    for item in batch.values() if type(batch) is dict else batch:
        if item is labels:
            continue
        if type(item) is not Tensor or not (own := item.shape) or own[0] != rows:
            return None
    return rows if issued is None else min(rows, len(issued))
