"""Metrics over whole data sets: means by weight, accuracy and F1 by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.plugin import Parts, Strategy

#: Is predicted where nothing can be; no label has it.
NO_CLASS = torch.iinfo(torch.int64).min
#: The loss itself among its parts, which have names.
LOSS = None


class WeightedMean:
    """The mean of batch means, each weighted by the items behind it.

    Sums stay on the device of the values, in float64, and are read once.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._weight = 0.0

    def add(self, mean: Tensor | float, weight: float) -> None:
        """Count a batch.

        Args:
            mean: 0-d, or a number: the mean over the batch's items.
            weight: their number, above 0.
        """
        # On a CPU a float is cheaper than two more kernels; elsewhere it is a sync.
        if isinstance(mean, Tensor):
            mean = mean.item() if mean.device.type == "cpu" else mean.detach().double()
        self._sum = self._sum + mean * weight
        self._weight += weight

    def add_sums(self, total: float, weight: float) -> None:
        """Count what ``sums`` returned elsewhere."""
        self._sum, self._weight = self._sum + total, self._weight + weight

    def sums(self) -> tuple[float, float]:
        """Return the sum of means times weights, and that of weights."""
        return float(self._sum), self._weight

    def value(self) -> float:
        """Return the mean so far; NaN before anything counted."""
        return float(self._sum) / self._weight if self._weight else math.nan


class Means:
    """Means of batch means by name, each over the batches that have it."""

    def __init__(self) -> None:
        self._means: dict[str | None, WeightedMean] = {}

    def add(self, values: Mapping[Any, Tensor | float], weight: float) -> None:
        """Count a batch.

        Args:
            values: means over its items.
            weight: their number; 0 leaves the batch out, whatever its means.
        """
        if weight <= 0:
            return
        for name, value in values.items():
            self._mean_of(name).add(value, weight)

    def unite(self, strategy: Strategy) -> None:
        """Count what the other processes counted, too; all of them call it."""
        if strategy.size == 1:
            return
        own = {name: mean.sums() for name, mean in self._means.items()}
        everywhere = strategy.gather(own)
        self._means = {}
        for each in everywhere:
            for name, sums in each.items():
                self._mean_of(name).add_sums(*sums)

    def value(self, name: str | None) -> float:
        """Return a mean so far; NaN before anything counted."""
        return self._mean_of(name).value()

    def names(self) -> list[str | None]:
        """Return what there are means of."""
        return list(self._means)

    def _mean_of(self, name: str | None) -> WeightedMean:
        return self._means.setdefault(name, WeightedMean())


class LossMeans:
    """The mean of a loss, and of each value that a step function returns beside it."""

    def __init__(self) -> None:
        self._means = Means()

    def add(self, loss: Tensor, weight: float, parts: Parts) -> None:
        """Count a batch.

        Args:
            loss: 0-d, the mean over the batch's items.
            weight: their number; 0 leaves the batch out, whatever its mean.
            parts: means over the same items, by name.
        """
        values: dict[str | None, Tensor | float] = {LOSS: loss}
        self._means.add(values | {**parts}, weight)

    def unite(self, strategy: Strategy) -> None:
        """Count what the other processes counted, too; all of them call it."""
        self._means.unite(strategy)

    def value(self) -> float:
        """Return the mean loss so far; NaN before anything counted."""
        return self._means.value(LOSS)

    def parts(self) -> dict[str, float]:
        """Return ``val_<name>`` of each part: its mean over the batches that had it."""
        names = (name for name in self._means.names() if name != LOSS)
        return {f"val_{name}": self._means.value(name) for name in names}


def accuracy(predicted: Tensor, target: Tensor) -> float:
    """Return the fraction of equal entries, in [0, 1].

    Args:
        predicted: class numbers (N,), int64.
        target: class numbers (N,), int64.
    """
    return float((predicted == target).double().mean())


def macro_f1(predicted: Tensor, target: Tensor) -> float:
    """Return the unweighted mean of the classes' F1 scores, in [0, 1].

    Classes are those that occur in either argument, as in scikit-learn's ``f1_score``
    with ``average="macro"``. F1 of a class is ``2 tp / (predicted + actual)``.
    ``NO_CLASS`` is none of them: it is a miss of the class that is true.

    Args:
        predicted: class numbers (N,), int64.
        target: class numbers (N,), int64.
    """
    classes, numbers = torch.unique(torch.cat((predicted, target)), return_inverse=True)
    ours, theirs = numbers.split(len(predicted))
    count = len(classes)
    hits = torch.bincount(ours[ours == theirs], minlength=count)
    in_all = torch.bincount(ours, minlength=count) + torch.bincount(
        theirs, minlength=count
    )
    scores = 2 * hits.double() / in_all
    return float(scores[classes != NO_CLASS].mean())
