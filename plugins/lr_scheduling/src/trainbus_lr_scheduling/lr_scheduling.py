"""Advance a learning-rate schedule exactly when an update was applied.

The schedule follows ``trainer.update``, not ``trainer.step``: a window whose update was
skipped (fp16 overflow) leaves it where it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainbus_lr_scheduling.checks import (
    advances_over,
    check_combination,
    check_floor,
    check_needs_no_total,
    check_object,
    check_owner,
    check_savable,
    check_source,
    checked_warmup,
    planned_advances,
)
from trainbus_lr_scheduling.drivers import (
    COURSE,
    ClosedForm,
    base_lrs,
    differences,
    in_order,
    set_lr,
)
from trainbus_lr_scheduling.groups import check_groups
from trainbus_lr_scheduling.joining import heard
from trainbus_lr_scheduling.left import heed_set_rates, note_left, refuse_set_rates
from trainbus_lr_scheduling.plan import plan_of_plateau, plan_of_schedule
from trainbus_lr_scheduling.saved import check_end, check_state
from trainbus_lr_scheduling.schedules import NEEDS_TOTAL, Schedule, warmup_advances
from trainbus_lr_scheduling.torch_driver import TorchDriver
from training import CheckpointError, ConfigError, checked_options
from training.callbacks import Callback
from training.plugin import Plan, count, heard_if

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler  # or whatever has its methods

    from training import Trainer
    from training.plugin import PlannedRun

logger = logging.getLogger(__name__)


class LearningRateSchedulerCallback(Callback):
    """Move the learning rate during a run, by a torch scheduler or by configuration.

    Args:
        scheduler: a torch scheduler of the run's optimizer, or an object of one's own
            with ``step()``. Without one, ``type`` names the schedule, and it is built
            when the run's length is known.
        type: ``"cosine"``, ``"linear"``, ``"constant"``, ``"step"`` or ``"plateau"``.
        interval: ``"step"`` advances after each applied update, ``"epoch"`` after each
            completed epoch that had one. None: ``"step"`` for a ``type``, ``"epoch"``
            for a scheduler object, unless the lengths it was built with show that it
            counts updates: then that has to be said. A plateau advances with each
            fresh metric.
        warmup: advances until the full rate; below 1 a fraction of what is planned.
        min_lr: lowest rate after the warmup, absolute; a group whose own is lower
            keeps that.
        min_factor: lowest rate as a fraction of each group's rate; the larger counts.
        gamma: factor of each drop of ``step``.
        step_size: advances between two drops of ``step``; it has no default.
        monitor: metric that a plateau follows; NaN counts as no improvement.
        mode: ``"min"`` or ``"max"``: which direction of ``monitor`` is better.
        patience: checks without improvement that a plateau lets pass; the next one
            lowers the rate (as in torch).
        factor: what a plateau multiplies the rate by, between 0 and 1.
        threshold: relative change of ``monitor`` that counts as improvement.
        cooldown: checks after a drop in which misses are not counted.
        on_schedule_change: what to do if a checkpoint was saved under other settings:
            ``"error"``; ``"keep"`` the saved ones; ``"new"`` starts the configured
            schedule here, over the updates that are left; ``"rescale"`` goes on as if
            the whole run had been configured so.
    Raises:
        ConfigError: a value is unknown, out of range or contradicts another.
    """

    name = "lr_scheduling"
    hook_api = ">=1.1,<2"
    mutates = ("optimizer",)
    consumes = ("monitor",)
    alters_training = True

    @checked_options
    def __init__(
        self,
        scheduler: LRScheduler | None = None,
        *,
        type: Literal["cosine", "linear", "constant", "step", "plateau"]  # noqa: A002
        | None = None,
        interval: Literal["step", "epoch"] | None = None,
        warmup: Annotated[float, Ge(0), Lt(math.inf)] = 0,
        min_lr: Annotated[float, Ge(0), Lt(math.inf)] = 0.0,
        min_factor: Annotated[float, Ge(0), Le(1)] = 0.0,
        gamma: Annotated[float, Gt(0), Lt(math.inf)] = 0.1,
        step_size: Annotated[int, Ge(1)] | None = None,
        monitor: Annotated[str, MinLen(1)] = "val_loss",
        mode: Literal["min", "max"] = "min",
        patience: Annotated[int, Ge(0)] = 10,
        factor: Annotated[float, Gt(0), Lt(1)] = 0.1,
        threshold: Annotated[float, Ge(0)] = 1e-4,
        cooldown: Annotated[int, Ge(0)] = 0,
        on_schedule_change: Literal["error", "keep", "new", "rescale"] = "error",
    ) -> None:
        #: The torch scheduler that was passed in; None when ``type`` was given.
        self.scheduler = scheduler
        check_source(scheduler, type)
        self.type = type
        self.is_plateau = type == "plateau" or isinstance(scheduler, ReduceLROnPlateau)
        # A closed form does not look at them: they stay settings of the run.
        self.compares_options = COURSE if type is None or self.is_plateau else ()
        self.interval = interval or ("epoch" if scheduler is not None else "step")
        self._is_said = interval is not None
        check_combination(type, scheduler, interval, warmup, step_size, self.is_plateau)
        self.warmup, self.min_lr, self.min_factor = warmup, min_lr, min_factor
        self.gamma, self.step_size = gamma, step_size
        self.monitor, self.on_schedule_change = monitor, on_schedule_change
        #: Checks that a plateau lets pass.
        self.patience = patience
        self._plateau: dict[str, Any] = {
            "mode": mode,
            "patience": patience,
            "factor": factor,
            "threshold": threshold,
            "cooldown": cooldown,
        }
        self._driver: ClosedForm | TorchDriver | None = None
        self._trainer: Trainer | None = None
        self._is_loaded = False
        self._hearing = ExitStack()  # of groups that join
        self._epoch_mark = self._update_mark = 0  # at the last advance per epoch

    @property
    def driver(self) -> ClosedForm | TorchDriver:
        """What moves the rates; there from ``on_setup`` on."""
        assert self._driver is not None, "on_setup has not run"
        return self._driver

    def plan(self, run: PlannedRun) -> Plan:
        """Return the rates of a planned run, and why they are not what they seem."""
        name = run.name_of(self)
        try:
            self._check_floor(run.lr)
            schedule = self.schedule(run)
        except ConfigError as error:
            return Plan({"rate": ["unknown: see the conflicts"]}, {}, [str(error)])
        if schedule is not None:
            return plan_of_schedule(run, name, schedule, self.interval)
        return plan_of_plateau(run, name, self.monitor, self.patience)

    def _check_floor(self, rate: float) -> None:
        if self.type not in (None, "constant"):  # which have no floor
            check_floor(self.min_lr, rate)

    def schedule(self, trainer: Trainer | PlannedRun) -> Schedule | None:
        """Return the closed form of a configured schedule, None for any other.

        Raises:
            ConfigError: it depends on the run's length, which is unknown.
        """
        if self.type is None or self.is_plateau:
            return None
        if (total := planned_advances(trainer, self.interval)) is None:
            check_needs_no_total(self.type, self.warmup, self.interval)
        return Schedule(
            type=self.type,
            total=total if self.type in NEEDS_TOTAL else None,
            warmup=warmup_advances(self.warmup, total),
            min_lr=self.min_lr,
            min_factor=self.min_factor,
            gamma=self.gamma,
            step_size=self.step_size,
        )

    def on_setup(self, trainer: Trainer) -> None:
        """Build the schedule and set the rates of the first update."""
        self._refuse_another(trainer)
        if self.scheduler is not None:
            self._check_owner(trainer.optimizer)
        # Resumed, the rates are as configured, and the checkpoint has its own.
        if trainer.resumed_from is None:
            heed_set_rates(self.scheduler, trainer.optimizer)
        self._trainer, self._is_loaded = trainer, False
        self._check_floor(max(base_lrs(trainer.optimizer)))
        if (schedule := self.schedule(trainer)) is not None:
            checked_warmup(self.warmup, planned_advances(trainer, self.interval))
            self._driver = ClosedForm(trainer.optimizer, schedule)
            self._hearing.enter_context(heard(trainer.optimizer, self._driver.join))
        elif self.scheduler is None:
            self._driver = self._plateau_driver(trainer.optimizer)
        else:
            self._take_object(trainer)
        self._begin(trainer)

    def _check_owner(self, optimizer: Optimizer) -> None:
        driver = self._driver
        moved = driver.optimizer if isinstance(driver, TorchDriver) else optimizer
        owner = getattr(self.scheduler, "optimizer", moved)
        check_owner(self.scheduler, owner, optimizer)
        check_groups(self.scheduler, optimizer)

    def _take_object(self, trainer: Trainer) -> None:
        if self._driver is not None:
            self.driver.start()  # what is looked at is fresh, in a later run, too
        check_object(self.scheduler, self.interval, self._is_said, trainer)
        if self._driver is None:
            self._driver = TorchDriver(self.scheduler, trainer.optimizer)
        check_savable(self.scheduler, self.driver.progress()["state"])

    def _refuse_another(self, trainer: Trainer) -> None:
        kind = LearningRateSchedulerCallback
        both = [name for name, p in trainer.plugins.items() if isinstance(p, kind)]
        if len(both) > 1:
            raise ConfigError(
                f"the plugins {' and '.join(map(repr, both))} both set learning rates, "
                "each over what the other has set; keep one (a warmup is an option of "
                "each type)"
            )

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Check the monitored metric; begin what no checkpoint says where to go on."""
        if self.is_plateau:
            called = trainer.bus.name_of(self) or self.name
            mode = getattr(self.scheduler, "mode", self._plateau["mode"])
            trainer.require_metric(self.monitor, f"{called}.monitor", mode)
        if not resumed:
            if isinstance(self._driver, TorchDriver):  # a closed form warns by itself
                refuse_set_rates(self.scheduler, trainer.optimizer)
            self._begin(trainer)
        elif not self._is_loaded:  # the run that was saved had no schedule
            self._begin_here(trainer)

    @property
    def _advances_by(self) -> str:
        """What advances it: an applied update, an epoch with one, a fresh metric."""
        return "metric" if self.is_plateau else self.interval

    @heard_if(lambda self: self._advances_by == "step")
    def on_step_end(self, applied: bool) -> None:
        """Advance a per-update schedule if the update was applied."""
        # Asked last: under fp16 on CUDA the answer waits for the device.
        if self._advances_by == "step" and applied:
            self.driver.advance()

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Advance a plateau if its metric was measured just now."""
        if trainer.is_extra_evaluation:
            return  # a run that goes on would else have another rate
        if self._advances_by == "metric" and self.monitor in metrics:
            value = metrics[self.monitor]
            # An infinite value would become the best for ever; NaN is a miss.
            self.driver.advance(value if math.isfinite(value) else math.nan)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Advance a per-epoch schedule, once an epoch in which an update happened."""
        if self._advances_by == "epoch" and trainer.epoch > self._epoch_mark:
            if trainer.update > self._update_mark:
                self.driver.advance()
            self._set_marks(trainer)  # the end of a part of one sets none

    def on_train_end(self, trainer: Trainer) -> None:
        """Say how far short of its end skipped updates left the schedule."""
        skipped = trainer.step - trainer.update
        if skipped and self._advances_by == "step":
            logger.info(
                "the learning rate ended %s short of its plan: as many were skipped",
                count(skipped, "update"),
            )

    def on_close(self) -> None:
        """Note the rates that the run leaves: another one will have been set."""
        if self._trainer is not None:
            self._hearing.close()
            note_left(self._trainer.optimizer)
            self._trainer = None  # a run that ends before its set-up leaves none

    def state_dict(self) -> dict[str, Any]:
        """Return settings and progress of the schedule, and the epoch it is in."""
        if self._driver is None:
            return {}
        return {
            "kind": self._kind(),
            "interval": self.interval,
            "settings": self.driver.settings,
            "progress": self.driver.progress(),
            "epoch_mark": self._epoch_mark,
            "update_mark": self._update_mark,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint was, or as ``on_schedule_change`` says.

        Raises:
            CheckpointError: the schedule was another one and nothing says what to do,
                or no run can have saved the state.
        """
        if not state:
            return
        check_state(state)
        trainer = self._trainer
        assert trainer is not None, "on_setup has not run"
        state = in_order(state, trainer.group_places)
        if (state["kind"], state["interval"]) == (self._kind(), self.interval):
            self.driver.check(state["settings"], state["progress"])
        changes = self._changes(state)
        self._epoch_mark, self._update_mark = state["epoch_mark"], state["update_mark"]
        if changes:
            self._resolve(changes, state, trainer)
        else:
            self.driver.resume(state["settings"], state["progress"])
        self._is_loaded = True

    def _begin(self, trainer: Trainer) -> None:
        self._epoch_mark = self._update_mark = 0
        self.driver.start()
        note_left(trainer.optimizer)  # so that one that is set from here on is seen

    def _begin_here(self, trainer: Trainer) -> None:
        place = advances_over(trainer, self.interval)
        planned = planned_advances(trainer, self.interval)
        # At least one, as a schedule is made for no fewer.
        left = None if planned is None else max(1, planned - place)
        self.driver.restart(place, checked_warmup(self.warmup, left))
        self._set_marks(trainer)

    def _set_marks(self, trainer: Trainer) -> None:
        self._epoch_mark, self._update_mark = trainer.epoch, trainer.update

    def _kind(self) -> str:
        return self.type or f"{self.scheduler.__class__.__name__} object"

    def _changes(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Return what differs from ``state``; its settings if of the same kind."""
        here = {"type": self._kind(), "interval": self.interval}
        there = {"type": state["kind"], "interval": state["interval"]}
        return differences(here, there) or differences(
            self.driver.settings, self.driver.as_saved(state["settings"])
        )

    def _resolve(
        self, changes: Mapping[str, str], state: Mapping[str, Any], trainer: Trainer
    ) -> None:
        told = ", ".join(changes.values())
        choice = self.on_schedule_change
        is_other_kind = not changes.keys().isdisjoint(("type", "interval"))
        if choice == "error" or (is_other_kind and choice != "new"):
            ways = "'new'" if is_other_kind else "'keep', 'new' or 'rescale'"
            raise CheckpointError(
                f"lr_scheduling: {told}; set lr_scheduling.on_schedule_change to "
                f"{ways}, or restore what differs"
            )
        logger.warning("lr_scheduling: %s; on_schedule_change is %r", *(told, choice))
        if choice == "keep":
            self.driver.resume(state["settings"], state["progress"])
            check_end(self.scheduler, trainer, self.interval)
        elif choice == "new":
            self._begin_here(trainer)
        else:
            place = advances_over(trainer, self.interval)
            if self.interval == "step":  # a skipped update was no advance
                place = max(0, place - (trainer.step - trainer.update))
            self.driver.rescale(state["progress"], place)
            self._set_marks(trainer)

    def _plateau_driver(self, optimizer: Optimizer) -> TorchDriver:
        rates = base_lrs(optimizer)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            set_lr(group, rate)  # a restored rate is progress, not a setting
        floors = [*map(self._floor, rates)]
        plateau = ReduceLROnPlateau(optimizer, min_lr=floors, **self._plateau)
        return TorchDriver(plateau, optimizer, self._floor)

    def _floor(self, rate: float) -> float:
        return max(self.min_lr, self.min_factor * rate)
