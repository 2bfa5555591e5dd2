"""A model, data and a metric that are small, fast, and always the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.bus.callback import BuiltIn, Callback
from training.view import TrainerView

FEATURES = 4


class TinyModel(nn.Module):
    """A perceptron from x (B, 4) to y (B, 1), float32, that returns its mean loss.

    It has dropout: whoever draws from the global random generators changes the run.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1)
            )

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return ``{"loss": mean squared error, 0-d}``."""
        return {"loss": nn.functional.mse_loss(self.layers(x), y)}


def tiny_batches(num_batches: int = 4, size: int = 2, seed: int = 1) -> list[Any]:
    """Return batches of x (size, 4) and y (size, 1)."""
    draws = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, FEATURES, generator=draws),
            torch.randn(size, 1, generator=draws),
        )
        for _ in range(num_batches)
    ]


class FreshBatches(list[Any]):
    """Batches that are copied as they are given out, as a loader makes them anew.

    On a CPU those of a list are the run's own tensors: a plugin that changes them in
    place changes the data of later epochs, which no checkpoint holds.
    """

    def __iter__(self) -> Iterator[Any]:
        """Yield a copy of each."""
        return map(copy.deepcopy, super().__iter__())


class FixedDuration(BuiltIn):
    """Gives all epochs one duration: runs are compared, with what plugins make of it.

    A plugin may keep a row, or how long that is once written; and divide by it.
    """

    name = "kit_timeless"

    def on_epoch_end(self, trainer: Any) -> None:
        """Set it, before another plugin sees the row."""
        trainer.state.history[-1]["seconds"] = 1.0


class MetricSource(Callback):
    """Delivers metrics, so that plugins that watch some have something to watch.

    Args:
        series: metric name -> its values, one an evaluation, the last one for ever.
            None: ``val_loss``, the mean loss on batches that are not in training.
    """

    name = "kit_metrics"

    def __init__(self, series: Mapping[str, Sequence[float]] | None = None) -> None:
        self.series = None if series is None else dict(series)
        self._batches = tiny_batches(2, seed=2)
        self._count = 0

    def on_setup(self) -> None:
        """Begin at the first value."""
        self._count = 0

    def metric_names(self) -> list[str]:
        """Return what ``evaluate`` delivers."""
        return ["val_loss"] if self.series is None else list(self.series)

    def evaluate(self, trainer: TrainerView) -> dict[str, float]:
        """Return this evaluation's values."""
        index = self._count
        if self.series is not None:
            return {
                name: float(values[min(index, len(values) - 1)])
                for name, values in self.series.items()
            }
        losses = [trainer.compute_loss(batch)[0] for batch in self._batches]
        return {"val_loss": float(torch.stack(losses).mean())}

    def on_metrics(self, trainer: TrainerView) -> None:
        """Count an evaluation that was not left."""
        # A run that goes on from an extra one does not have it.
        self._count += not trainer.is_extra_evaluation

    def state_dict(self) -> dict[str, Any]:
        """Return how many evaluations there were."""
        return {"count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the next value."""
        self._count = int(state["count"])
