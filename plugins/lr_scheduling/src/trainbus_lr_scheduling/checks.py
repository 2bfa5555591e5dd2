"""Refuse what cannot work before the first batch, and warn of what hardly can."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from trainbus_lr_scheduling.lengths import first_part, scheduler_length
from training.errors import ConfigError
from training.plan import epochs_begun

if TYPE_CHECKING:
    from training.trainer import Trainer

logger = logging.getLogger(__name__)


def check_source(scheduler: object, kind: str | None) -> None:
    """Raise ``ConfigError`` unless there is one source: ``kind``, or a scheduler."""
    if (scheduler is None) == (kind is None):
        raise ConfigError(
            "lr_scheduling needs a scheduler object or a type, and not both; "
            f"it got scheduler={scheduler.__class__.__name__} and type={kind!r}"
        )
    if scheduler is None:
        return
    if not hasattr(scheduler, "step") or not hasattr(scheduler, "optimizer"):
        raise ConfigError(
            f"lr_scheduling.scheduler is {scheduler!r}, which is no torch scheduler; "
            "pass an object of torch.optim.lr_scheduler"
        )


def check_combination(
    kind: str | None,
    scheduler: object,
    interval: str | None,
    warmup: float,
    step_size: int | None,
    is_plateau: bool,
) -> None:
    """Raise ``ConfigError`` for options that contradict or lack one another."""
    if interval is not None and is_plateau:
        raise ConfigError(
            f"lr_scheduling.interval is {interval!r}, but a plateau advances with each "
            "fresh value of its monitor; leave interval out"
        )
    if warmup > 1 and warmup != int(warmup):
        raise ConfigError(
            f"lr_scheduling.warmup is {warmup}; it must be a whole number of advances, "
            "or a fraction of the run below 1"
        )
    if warmup and (scheduler is not None or is_plateau):
        what = "a plateau" if is_plateau else "a scheduler object"
        raise ConfigError(
            f"lr_scheduling.warmup is {warmup}, but {what} takes none here; use one of "
            "the types cosine, linear, constant, step, or torch's SequentialLR"
        )
    if kind == "step" and step_size is None:
        raise ConfigError(
            "lr_scheduling.type is 'step', which needs step_size: the number of "
            "updates (with interval 'epoch': epochs) between two drops"
        )
    if kind != "step" and step_size is not None:
        raise ConfigError(
            f"lr_scheduling.step_size is {step_size}, but only type 'step' has it"
        )


def check_object(scheduler: LRScheduler, interval: str, trainer: Trainer) -> None:
    """Refuse a scheduler of another optimizer; warn if its length does not fit.

    Raises:
        ConfigError: another optimizer, or a OneCycleLR that would end inside the run.
    """
    name = type(scheduler).__name__
    if scheduler.optimizer is not trainer.optimizer:
        raise ConfigError(
            f"lr_scheduling: the {name} belongs to another optimizer than the run's; "
            "build it with the optimizer that the Trainer gets"
        )
    planned = planned_advances(trainer, interval)
    if planned is None:
        return
    _check_length(scheduler, name, interval, planned, trainer)
    part = first_part(scheduler)
    if part >= planned:
        logger.warning(
            "lr_scheduling: the first part of the %s is %d advances long, but with "
            "interval %r this run has %d: it never gets to the rest",
            *(name, part, interval, planned),
        )
    rates = [float(group["lr"]) for group in trainer.optimizer.param_groups]
    if interval == "epoch" and not any(rates):
        logger.warning(
            "lr_scheduling: the %s begins at a rate of 0, so the first epoch learns "
            "nothing; if it counts updates, pass interval='step'",
            name,
        )


def _check_length(
    scheduler: LRScheduler, name: str, interval: str, planned: int, trainer: Trainer
) -> None:
    length = scheduler_length(scheduler)
    if length is None or length == planned:
        return
    other = "epoch" if interval == "step" else "step"
    hint = f"make it {planned}"
    if length == planned_advances(trainer, other):
        hint = f"pass interval={other!r}"
    sentence = (
        f"lr_scheduling: the {name} is {length} advances long, but with interval "
        f"{interval!r} this run has {planned}; {hint}"
    )
    if isinstance(scheduler, OneCycleLR) and length < planned:
        raise ConfigError(sentence)  # torch would raise there, in mid-run
    logger.warning(sentence)


def warn_of_warmup(warmup: int, planned: int | None) -> None:
    """Warn of a warmup that is not over when the run is.

    Args:
        warmup: advances until the full rate.
        planned: advances of the whole run, None if unknown.
    """
    if planned is not None and warmup >= planned:
        logger.warning(
            "lr_scheduling.warmup is %d advances, but the run has %d: the full rate is "
            "never reached",
            *(warmup, planned),
        )


def planned_advances(trainer: Trainer, interval: str) -> int | None:
    """Return how often a schedule advances in the whole run; None if unknown."""
    if interval == "step":
        return trainer.total_steps
    if trainer.max_steps is None:
        return trainer.num_epochs
    if trainer.steps_per_epoch is None:
        return None
    epochs = epochs_begun(trainer.max_steps, trainer.steps_per_epoch)
    return min(trainer.num_epochs, epochs)
