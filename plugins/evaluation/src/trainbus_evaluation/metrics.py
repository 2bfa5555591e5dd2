"""Metrics over whole data sets: means by weight, accuracy and F1 by class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.plugin import Strategy


class WeightedMean:
    """The mean of batch means, each weighted by the items behind it.

    Sums stay on the device of the values, in float64, and are read once.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._weight = 0.0

    def add(self, mean: Tensor, weight: float) -> None:
        """Count a batch.

        Args:
            mean: 0-d, the mean over the batch's items.
            weight: their number; 0 leaves the batch out, whatever its mean.
        """
        if weight <= 0:
            return
        # On a CPU a float is cheaper than two more kernels; elsewhere it is a sync.
        value = mean.item() if mean.device.type == "cpu" else mean.detach().double()
        self._sum = self._sum + value * weight
        self._weight += weight

    def unite(self, strategy: Strategy) -> None:
        """Count what the other processes counted, too; all of them call it."""
        if strategy.size > 1:
            self._sum, self._weight = strategy.sum([float(self._sum), self._weight])

    def value(self) -> float:
        """Return the mean so far; NaN before anything counted."""
        return float(self._sum) / self._weight if self._weight else math.nan


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
    return float((2 * hits.double() / in_all).mean())
