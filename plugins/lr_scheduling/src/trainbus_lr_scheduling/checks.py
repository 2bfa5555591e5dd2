"""Refuse what cannot work before the first batch, and warn of what hardly can."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from trainbus_lr_scheduling.course import rates_over
from trainbus_lr_scheduling.lengths import first_cycle, first_part, scheduler_length
from trainbus_lr_scheduling.schedules import NEEDS_TOTAL, warmup_advances
from trainbus_lr_scheduling.units import why_updates
from training import ConfigError
from training.plugin import count, epochs_begun, foreign_value, num_windows

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import PlannedRun

logger = logging.getLogger(__name__)


def check_source(scheduler: object, kind: str | None) -> None:
    """Raise ``ConfigError`` unless there is one source: ``kind``, or a scheduler."""
    if scheduler is None and kind is None:
        raise ConfigError(
            "lr_scheduling needs a scheduler object or a type, and got neither; name a "
            "type, as in a configuration's lr_scheduling: {type: cosine} or in --set "
            "plugins.lr_scheduling.type=cosine"
        )
    if scheduler is not None and kind is not None:
        raise ConfigError(
            "lr_scheduling needs a scheduler object or a type, and not both; "
            f"it got scheduler={scheduler.__class__.__name__} and type={kind!r}"
        )
    if scheduler is not None:
        _check_own(scheduler)


def _check_own(scheduler: Any) -> None:
    """Refuse an object that cannot be stepped, or whose state cannot be carried on."""
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        raise ConfigError(
            f"lr_scheduling.scheduler is {scheduler!r}, which is no scheduler; pass an "
            "object of torch.optim.lr_scheduler, or one of your own with step()"
        )
    name = type(scheduler).__name__
    needed = _needed(scheduler.step)
    if needed and not isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f"lr_scheduling.scheduler is a {name}, whose step() needs {needed}; it is "
            "called without, so give that a default, or wrap it in a class of your own"
        )
    both = [hasattr(scheduler, each) for each in ("state_dict", "load_state_dict")]
    if any(both) != all(both) or not (all(both) or hasattr(scheduler, "__dict__")):
        raise ConfigError(
            f"lr_scheduling.scheduler is a {name}, whose state cannot be carried on; "
            "give it both state_dict() and load_state_dict()"
        )


def _needed(function: Any) -> str:
    """Return the names of the arguments that have no default, or ``""``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C
        return ""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return ", ".join(
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in variable
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


def check_owner(scheduler: object, owner: object, optimizer: object) -> None:
    """Raise ``ConfigError`` for a scheduler whose optimizer is not the run's."""
    if owner is not optimizer:
        raise ConfigError(
            f"lr_scheduling: the {type(scheduler).__name__} belongs to another "
            "optimizer than the run's; build it with the one that the Trainer gets"
        )


def check_object(
    scheduler: Any, interval: str, is_said: bool, trainer: Trainer
) -> None:
    """Refuse a scheduler that does not go with the run; say what it will do.

    Args:
        scheduler: fresh.
        interval: ``"step"`` or ``"epoch"``.
        is_said: whether somebody chose the interval; else the lengths that the
            scheduler was built with must not contradict it.
        trainer: the run.
    Raises:
        ConfigError: a schedule that would end inside the run, or one that counts
            updates where nobody said so.
    """
    name, optimizer = type(scheduler).__name__, trainer.optimizer
    if isinstance(scheduler, ReduceLROnPlateau):
        return
    planned = planned_advances(trainer, interval)
    if planned is None:
        return
    if not is_said and interval == "epoch":
        _ask_for_interval(scheduler, planned, trainer)
    _check_length(scheduler, name, interval, planned, trainer)
    if (part := first_part(scheduler)) >= planned:
        logger.warning(
            "lr_scheduling: the first part of the %s is %s long, but with "
            "interval %r this run has %d: it never gets to the rest",
            *(name, count(part, "advance"), interval, planned),
        )
    elif (cycle := first_cycle(scheduler)) > planned:
        logger.warning(
            "lr_scheduling: the first cycle of the %s is %s long, but with "
            "interval %r this run has %d: it never restarts; make it at most %d",
            *(name, count(cycle, "advance"), interval, planned, planned),
        )
    if interval == "epoch" and not any(float(g["lr"]) for g in optimizer.param_groups):
        logger.warning(
            "lr_scheduling: the %s begins at a rate of 0, so the first epoch learns "
            "nothing; if it counts updates, pass interval='step'",
            name,
        )
    _tell(name, interval, planned, rates_over(scheduler, optimizer, planned))


def _ask_for_interval(scheduler: Any, epochs: int, trainer: Trainer) -> None:
    updates = trainer.total_steps
    if updates is None or not isinstance(scheduler, LRScheduler):
        return
    batches = updates * trainer.gradient_accumulation_steps
    try:
        by_updates = rates_over(scheduler, trainer.optimizer, updates)
    except ConfigError:  # it ends before: it was not made for so many
        by_updates = None
    by_epochs = rates_over(scheduler, trainer.optimizer, epochs)
    why = why_updates(scheduler, epochs, updates, batches, by_epochs, by_updates)
    if why is not None:
        raise ConfigError(
            "lr_scheduling: nobody said whether the scheduler counts updates or "
            f"epochs, and this {type(scheduler).__name__} seems made for updates: "
            f"{why}; among the callbacks pass LearningRateSchedulerCallback(scheduler, "
            "interval='step'), or interval='epoch' if that is meant"
        )


def _tell(name: str, interval: str, planned: int, rates: list[float] | None) -> None:
    """Say how often the schedule will advance, and to which rates."""
    unit = "update" if interval == "step" else "epoch"
    course = ""
    if rates:
        first, top, last = rates[0], max(rates), rates[-1]
        course = f": its rate begins at {first:g}, is {top:g} at most, ends at {last:g}"
    logger.info(
        "lr_scheduling: the %s advances after each %s, %d in all%s",
        *(name, unit, planned, course),
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
        f"lr_scheduling: the {name} is {count(length, 'advance')} long, but with "
        f"interval {interval!r} this run has {planned}; {hint}"
    )
    if isinstance(scheduler, OneCycleLR) and length < planned:
        raise ConfigError(sentence)  # torch would raise there, in mid-run
    logger.warning(sentence)


def check_savable(scheduler: object, state: Mapping[str, Any]) -> None:
    """Refuse a scheduler that keeps what no checkpoint can hold.

    Args:
        scheduler: that of the user.
        state: what it keeps now.
    Raises:
        ConfigError: names the value. Where attributes stand for a state, tensors are
            refused, too: they may be those of the run itself.
    """
    found = foreign_value(state, "its state")
    if found is None and not hasattr(scheduler, "state_dict"):
        found = _tensor_in(state, "its state")
    if found is not None:
        path, value = found
        raise ConfigError(
            f"lr_scheduling.scheduler is a {type(scheduler).__name__}, and {path} is a "
            f"{type(value).__name__}, which is not carried on; give it state_dict() "
            "and load_state_dict() that leave it out"
        )


def _tensor_in(value: Any, path: str) -> tuple[str, Tensor] | None:
    if isinstance(value, Tensor):
        return path, value
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    found = (_tensor_in(item, f"{path}[{key!r}]") for key, item in items)
    return next((each for each in found if each is not None), None)


def checked_warmup(warmup: float, planned: int | None) -> int:
    """Return a warmup in advances; warn of one that is not over when the run is.

    Args:
        warmup: as it is configured.
        planned: advances of the run, or of what is left of it; None if unknown.
    """
    advances = warmup_advances(warmup, planned)
    if planned is not None and advances >= planned:
        logger.warning(
            "lr_scheduling.warmup is %s, but the run has %d to go: the full "
            "rate is never reached",
            *(count(advances, "advance"), planned),
        )
    return advances


def check_floor(min_lr: float, rate: float) -> None:
    """Raise ``ConfigError`` for a floor above the highest rate: none would ever fall.

    Args:
        min_lr: lowest rate, absolute.
        rate: the highest of the groups' full rates.
    """
    if min_lr > rate:
        raise ConfigError(
            f"lr_scheduling.min_lr is {min_lr:g}, above the optimizer's rate of "
            f"{rate:g}, which then never falls; use a lower one, or min_factor, a "
            "fraction of the rate"
        )


def check_needs_no_total(kind: str, warmup: float, interval: str) -> None:
    """Raise ``ConfigError`` for what depends on a length, in a run that has none."""
    if kind in NEEDS_TOTAL:
        what = f"type is {kind!r}"
        else_use = "type 'constant', 'step' or 'plateau' with a whole warmup"
    elif 0 < warmup < 1:
        what = f"warmup is {warmup}, a fraction of the run"
        else_use = "a whole warmup"
    else:
        return
    if interval == "step":
        raise ConfigError(
            f"lr_scheduling.{what}, which needs the number of updates, but the "
            f"training loader has no length; set max_steps, or use {else_use}"
        )
    # Without max_steps the number of epochs is num_epochs.
    raise ConfigError(
        f"lr_scheduling.{what}, which needs the number of epochs, but max_steps is set "
        "and the training loader has no length; use interval 'step', or num_epochs in "
        "place of max_steps"
    )


def planned_advances(trainer: Trainer | PlannedRun, interval: str) -> int | None:
    """Return how often a schedule advances in the whole run; None if unknown."""
    if interval == "step":
        return trainer.total_steps
    total, per_epoch = trainer.total_steps, trainer.steps_per_epoch
    if total and per_epoch:
        return epochs_begun(total, per_epoch)
    return trainer.num_epochs if trainer.max_steps is None else None


def advances_over(trainer: Trainer, interval: str) -> int:
    """Return how many of a resumed run's planned advances are over.

    By what is left, since the saved counters may be of another unit, or of steps of
    another length. Skipped updates are among them.
    """
    length, planned = trainer.steps_per_epoch, planned_advances(trainer, interval)
    if length is None or planned is None:
        return trainer.step if interval == "step" else trainer.epoch
    done = num_windows(trainer.batches_seen, trainer.gradient_accumulation_steps)
    left = length * (trainer.num_epochs - trainer.epoch) - done
    if trainer.max_steps is not None:
        left = min(left, trainer.max_steps - trainer.step)
    if interval == "epoch":
        return planned - epochs_begun(left + done % length, length)
    return planned - left
