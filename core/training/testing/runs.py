"""Small real runs for tests: a trainer on toy data, and what a plugin heard in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.builtin.defaults import SILENT
from training.testing.probes import Probe
from training.testing.toys import (
    FreshBatches,
    MetricSource,
    TinyModel,
    tiny_batches,
)
from training.trainer import Trainer


def tiny_trainer(
    *callbacks: Any,
    save_dir: str | Path,
    num_epochs: int = 2,
    num_batches: int = 4,
    metrics: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> Trainer:
    """Return a CPU trainer on toy data that is ready for ``train()``.

    Args:
        callbacks: plugin instances.
        save_dir: the run's folder.
        num_epochs: passes over the batches.
        num_batches: batches of two rows in an epoch, made anew in each.
        metrics: name -> values, one an evaluation; by default ``val_loss`` is measured
            on the model. Ignored where a callback listens to ``evaluate`` itself, or a
            ``val_dataloader`` is given.
        options: other arguments of ``Trainer``, in place of the kit's.
    """
    model = options.pop("model", None) or TinyModel()
    everybody = list(callbacks)
    is_measured = "val_dataloader" in options or any(
        _delivers(callback) for callback in callbacks
    )
    if metrics is not None or not is_measured:
        everybody.append(MetricSource(metrics))
    settings: dict[str, Any] = {
        "train_dataloader": FreshBatches(tiny_batches(num_batches)),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "device": "cpu",
        "seed": 0,
        **options,
        "plugins": [*SILENT, *options.get("plugins", ())],
    }
    return Trainer(
        model=model,
        callbacks=everybody,
        num_epochs=num_epochs,
        save_dir=save_dir,
        **settings,
    )


def _delivers(callback: Any) -> bool:
    """Whether it declares metrics of its own; a wrapper of ``evaluate`` does not."""
    return hasattr(callback, "metric_names") and hasattr(callback, "evaluate")


@dataclass(frozen=True, slots=True)
class Event:
    """One call of a hook of the plugin under test.

    Attributes:
        hook: its name.
        step: ``trainer.step`` when it was called.
        epoch: ``trainer.epoch`` when it was called.
    """

    hook: str
    step: int
    epoch: int


@dataclass(slots=True)
class Heard(Probe):
    """What a plugin heard in a run, and the trainer it ran in.

    Attributes:
        name: what the plugin is called in the bus.
        trainer: the trainer, after its run.
        calls: the events that the plugin's hooks were called for, in order.
    """

    calls: list[Event] = field(default_factory=list)

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that were called, in order."""
        return [event.hook for event in self.calls]

    def watch(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Note the event, and call ``function``."""
        self.calls.append(Event(hook, self.trainer.step, self.trainer.epoch))
        return function(*arguments)


def run_events(
    plugin: Any, *neighbours: Any, save_dir: str | Path, **options: Any
) -> Heard:
    """Train with ``plugin`` and return what it heard.

    Args:
        plugin: the instance under test.
        neighbours: other plugin instances.
        save_dir: the run's folder.
        options: as for ``tiny_trainer``.
    """
    trainer = tiny_trainer(plugin, *neighbours, save_dir=save_dir, **options)
    heard = Heard(name=trainer.bus.name_of(plugin) or "")
    heard.watch_run(trainer)
    trainer.train()
    return heard
