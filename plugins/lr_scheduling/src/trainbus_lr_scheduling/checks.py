"""Refuse what cannot work before the first batch, and warn of what hardly can."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from trainbus_lr_scheduling.lengths import first_part, scheduler_length
from trainbus_lr_scheduling.schedules import TYPES
from training.errors import ConfigError, did_you_mean
from training.plan import epochs_begun

if TYPE_CHECKING:
    from training.trainer import Trainer

logger = logging.getLogger(__name__)

INTERVALS = ("step", "epoch")
ON_CHANGE = ("error", "keep", "new", "rescale")


def checked_type(scheduler: object, kind: str | None) -> str | None:
    """Return ``kind``, once either it or ``scheduler`` is seen to be usable."""
    if (scheduler is None) == (kind is None):
        raise ConfigError(
            "lr_scheduling needs a scheduler object or a type, and not both; "
            f"it got scheduler={scheduler.__class__.__name__} and type={kind!r}"
        )
    if kind is not None and kind not in TYPES:
        raise ConfigError(
            f"lr_scheduling.type is {kind!r}{did_you_mean(kind, TYPES)}; "
            f"choose one of: {', '.join(TYPES)}"
        )
    if scheduler is None:
        return kind
    if not hasattr(scheduler, "step") or not hasattr(scheduler, "optimizer"):
        raise ConfigError(
            f"lr_scheduling.scheduler is {scheduler!r}, which is no torch scheduler; "
            "pass an object of torch.optim.lr_scheduler"
        )
    return kind


def check_choices(
    interval: str | None, mode: str, on_change: str, is_plateau: bool
) -> None:
    """Raise ``ConfigError`` for a word that is no choice of its option."""
    for name, value, choices in (
        ("interval", interval, INTERVALS),
        ("mode", mode, ("min", "max")),
        ("on_schedule_change", on_change, ON_CHANGE),
    ):
        if value is not None and value not in choices:
            raise ConfigError(
                f"lr_scheduling.{name} is {value!r}{did_you_mean(value, choices)}; "
                f"choose one of: {', '.join(choices)}"
            )
    if interval is not None and is_plateau:
        raise ConfigError(
            f"lr_scheduling.interval is {interval!r}, but a plateau advances with each "
            "fresh value of its monitor; leave interval out"
        )


def check_combination(
    kind: str | None,
    scheduler: object,
    warmup: float,
    step_size: int | None,
    is_plateau: bool,
) -> None:
    """Raise ``ConfigError`` for options that contradict or lack one another."""
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


def check_numbers(
    warmup: float,
    min_lr: float,
    min_factor: float,
    gamma: float,
    step_size: int | None,
) -> None:
    """Raise ``ConfigError`` for a number outside its range."""
    is_whole = warmup == int(warmup) if math.isfinite(warmup) else False
    _check_rules(
        ("warmup", warmup, 0 <= warmup < 1 or (warmup >= 1 and is_whole),
         "a whole number of advances, or a fraction of the run below 1"),
        ("min_lr", min_lr, 0 <= min_lr < math.inf, "0 or more"),
        ("min_factor", min_factor, 0 <= min_factor <= 1, "between 0 and 1"),
        ("gamma", gamma, 0 < gamma < math.inf, "above 0"),
        ("step_size", step_size, step_size is None or step_size >= 1, "1 or more"),
    )  # fmt: skip


def check_plateau(
    patience: int, factor: float, threshold: float, cooldown: int
) -> None:
    """Raise ``ConfigError`` for a number of a plateau outside its range."""
    _check_rules(
        ("patience", patience, patience >= 0, "0 or more"),
        ("factor", factor, 0 < factor < 1, "between 0 and 1"),
        ("threshold", threshold, threshold >= 0, "0 or more"),
        ("cooldown", cooldown, cooldown >= 0, "0 or more"),
    )


def _check_rules(*rules: tuple[str, float | None, bool, str]) -> None:
    for name, value, is_valid, expected in rules:
        if not is_valid:
            raise ConfigError(f"lr_scheduling.{name} is {value}; it must be {expected}")


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
