"""What the state of a schedule in a checkpoint must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from trainbus_lr_scheduling.checks import advances_over, planned_advances
from trainbus_lr_scheduling.course import rates_over
from trainbus_lr_scheduling.schedules import NEEDS_TOTAL, Schedule
from training import CheckpointError, ConfigError
from training.plugin import count, has_names, is_count, is_finite, require_state

if TYPE_CHECKING:
    from training import Trainer

OWNER = "lr_scheduling"
DEFAULTS = Schedule(type="constant")
COUNT = "a whole number of at least 0"
require = partial(require_state, OWNER)


def check_state(state: Mapping[str, Any]) -> None:
    """Look at what is alike for all schedules: kind, interval, and marks.

    Raises:
        CheckpointError: no run can have saved it; says what of it.
    """
    kind, interval = state.get("kind"), state.get("interval")
    require(isinstance(kind, str), "kind", kind, "the type of a schedule")
    is_right = interval in ("step", "epoch")
    require(is_right, "interval", interval, "'step' or 'epoch'")
    for name in ("settings", "progress"):
        value = state.get(name)
        require(has_names(value), name, value, "a mapping of names")
    for at, value in (
        ("progress.advances", state["progress"].get("advances")),
        ("epoch_mark", state.get("epoch_mark")),
        ("update_mark", state.get("update_mark")),
    ):
        require(is_count(value), at, value, COUNT)


def check_closed_form(settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Look at the settings of a ``Schedule`` and at where it began.

    Raises:
        CheckpointError: no run can have saved them; says what of them.
    """
    needed = {"type", "base_lrs"}
    known = needed | {field.name for field in fields(Schedule)}
    is_right = needed <= settings.keys() <= known
    require(is_right, "settings", settings, "those of a schedule")
    kind = settings["type"]
    for at, saved in (("settings", settings), ("progress", progress)):
        rates = saved.get("base_lrs", [])  # not in progress of earlier releases
        is_right = isinstance(rates, list) and all(map(is_finite, rates))
        require(is_right, f"{at}.base_lrs", rates, "a list of rates")
    for name, lowest, is_whole in (
        ("total", 1 if kind in NEEDS_TOTAL else None, True),
        ("step_size", 1 if kind == "step" else None, True),
        ("warmup", 0, True),
        ("min_lr", 0, False),
        ("min_factor", 0, False),
        ("gamma", 0, False),
    ):
        value = settings.get(name, getattr(DEFAULTS, name))
        is_kind = is_count(value) if is_whole else is_finite(value)
        is_right = value is None if lowest is None else is_kind and value >= lowest
        what = "None" if lowest is None else f"a number of at least {lowest}"
        require(is_right, f"settings.{name}", value, what)
    began_at, advances = progress.get("began_at"), progress["advances"]
    is_right = is_count(began_at, advances)
    wanted = f"a whole number within the {count(advances, 'advance')}"
    require(is_right, "progress.began_at", began_at, wanted)
    warmup = progress.get("warmup", 0)
    require(is_count(warmup), "progress.warmup", warmup, COUNT)


def check_kept(saved: Any, own: Any, at: str) -> None:
    """Look whether what a scheduler of torch kept is of the kinds that it keeps now.

    What one side does not know is not looked at: releases of torch differ in it.

    Raises:
        CheckpointError: something is of another kind; says what.
    """
    if isinstance(own, Mapping):
        require(isinstance(saved, Mapping), at, saved, "a mapping")
        for name in own.keys() & saved.keys():
            check_kept(saved[name], own[name], f"{at}.{name}")
    elif isinstance(own, (list, tuple)):
        is_right = isinstance(saved, (list, tuple))
        if is_right and any(isinstance(each, Mapping) for each in own):
            is_right = len(saved) == len(own)  # those of groups may be more by now
        require(is_right, at, saved, "a list as long as the scheduler's")
        for number, pair in enumerate(zip(saved, own, strict=False)):
            check_kept(*pair, f"{at}[{number}]")
    elif isinstance(own, bool) or not isinstance(own, (int, float, Tensor)):
        is_right = own is None or saved is None or isinstance(saved, type(own))
        require(is_right, at, saved, f"a {type(own).__name__}")
    elif isinstance(saved, Tensor) and isinstance(own, Tensor):
        is_right = saved.shape == own.shape and bool(saved.isfinite().all())
        require(is_right, at, saved, "a tensor of finite numbers")
    else:
        is_right = is_finite(saved) or (  # the best of a plateau that has seen none
            type(saved) is float and math.isinf(saved) and not math.isfinite(own)
        )
        require(is_right, at, saved, "a number")


def check_end(scheduler: Any, trainer: Trainer, interval: str) -> None:
    """Refuse a scheduler that was kept and would end inside the run.

    Args:
        scheduler: has its saved state; None where a type is configured.
        trainer: the run that goes on.
        interval: ``"step"`` or ``"epoch"``.
    Raises:
        CheckpointError: names it, and how far the run has to go.
    """
    planned = planned_advances(trainer, interval)
    if planned is None:
        return
    left = planned - advances_over(trainer, interval)
    is_over = False
    if isinstance(scheduler, OneCycleLR):
        is_over = scheduler.total_steps - scheduler.last_epoch < left
    try:
        rates_over(scheduler, trainer.optimizer, left)
    except ConfigError:  # it raises there, or one inside it does
        is_over = True
    if is_over:
        raise CheckpointError(
            "lr_scheduling: on_schedule_change is 'keep', but the "
            f"{type(scheduler).__name__} of the checkpoint ends inside the "
            f"{count(left, 'advance')} that this run has to go; use 'new' or 'rescale'"
        )
