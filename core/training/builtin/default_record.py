"""The record of a run that Python built: kept by default, and never in its way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from training.builtin.run_record import RunRecord
from training.errors import ConfigError

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Attributes of a trainer that stand below ``training``, as in a configuration.
SETTINGS = (
    "num_epochs",
    "max_steps",
    "precision",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "nonfinite",
    "tf32",
)


class DefaultRunRecord(RunRecord):
    """A ``RunRecord`` that nobody asked for: what prevents it does not end a run.

    Its ``config.yaml`` holds the trainer's settings under the names that they have in a
    configuration, and the trainer's ``metadata``, which tells what the trainer cannot
    see; no run can be started from it.
    """

    failure = "isolate"

    def __init__(self) -> None:
        super().__init__({}, {})
        self.head = "# What the run in this folder was built with, in Python.\n"
        self._is_kept = False

    def on_setup(self, trainer: Checkpointable) -> None:
        """Take the folder; where another run has it, keep no record and say so."""
        self._is_kept = True
        self.config = _configuration(trainer)
        try:
            super().on_setup(trainer)
        except ConfigError as error:
            self._is_kept = False
            log.warning("no record of this run is kept: %s", error)

    def on_train_begin(self, trainer: Checkpointable, resumed: bool) -> None:
        """Write the settings; what fails is made up for with the next file."""
        if not self._is_kept:
            return
        try:
            super().on_train_begin(trainer, resumed)
        except OSError as error:
            if self._started is None:  # the record of an earlier run is in the way
                raise
            log.warning("the record is written at a later time: %s", error)

    def on_epoch_end(self, trainer: Checkpointable) -> None:
        """Write the history so far."""
        if self._is_kept:
            super().on_epoch_end(trainer)

    def on_train_end(self, trainer: Checkpointable) -> None:
        """Write the history and the summary."""
        if self._is_kept:
            super().on_train_end(trainer)


def _configuration(trainer: Checkpointable) -> dict[str, Any]:
    """Return what a trainer was built with, as YAML can say it."""
    own: Any = trainer
    sizes = [weight.numel() for weight in trainer.model.parameters()]
    given = {name: getattr(own, name) for name in SETTINGS}
    settings: Mapping[str, Any] = {
        "seed": trainer.seed,
        "model": {"class": type(trainer.model).__name__, "weights": sum(sizes)},
        "training": {
            **_without_none(given),
            "device": str(trainer.device),
            "save_dir": str(trainer.save_dir),
            "optimizer": _optimizer(trainer.optimizer),
        },
        "plugins": list(trainer.plugins),
        "metadata": trainer.metadata or None,
    }
    return {key: _said(value) for key, value in _without_none(settings).items()}


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return its class and the options of the first group, as they begin."""
    options = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {"class": type(optimizer).__name__, **_without_none(options)}


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is set: None is a setting of which a configuration says nothing."""
    return {name: value for name, value in settings.items() if value is not None}


def _said(value: Any) -> Any:
    """Return ``value`` in plain words."""
    if isinstance(value, Mapping):
        return {str(key): _said(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_said(item) for item in value]
    if isinstance(value, torch.Tensor):  # a learning rate may be one: read once a run
        return value.item() if value.numel() == 1 else str(tuple(value.shape))
    is_plain = value is None or isinstance(value, (bool, int, float, str))
    return value if is_plain else str(value)
