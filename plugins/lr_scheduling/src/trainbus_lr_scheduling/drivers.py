"""What moves the rates of an optimizer: here a closed form, else a torch scheduler.

Both have the same methods, and keep two things apart: ``settings`` (what the user
configured) and progress. A checkpoint holds both, so that a resume can tell when the
settings have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trainbus_lr_scheduling.left import is_same
from trainbus_lr_scheduling.saved import check_closed_form
from trainbus_lr_scheduling.schedules import Schedule

logger = logging.getLogger(__name__)

#: Settings that have another name where a person writes them.
AS_WRITTEN = {"base_lrs": "optimizer.lr"}
#: Options of a parameter group that torch's schedulers read their course from.
COURSE = ("max_lr", "base_momentum", "max_momentum", "min_lr")
#: What drivers and torch's schedulers keep as a list with one entry a group.
BY_GROUP = frozenset(
    {
        *("base_lrs", "_last_lr", "rates", "lr_lambdas"),
        *("min_lrs", "max_lrs", "base_momentums", "max_momentums"),
        *COURSE,
    }
)


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Give a parameter group the rate ``lr``, also where the rate is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def full_rate(group: dict[str, Any], optimizer: Optimizer) -> float:
    """Return a group's full rate, remembered in the group as ``initial_lr``."""
    if "initial_lr" not in group:
        rate = group["lr"]
        # Groups without a rate of their own share torch's tensor, moved or not.
        others = optimizer.param_groups if isinstance(rate, Tensor) else []
        alike = (each for each in others if each["lr"] is rate)
        known = (each["initial_lr"] for each in alike if "initial_lr" in each)
        group["initial_lr"] = float(next(known, rate))
    return float(group["initial_lr"])


def base_lrs(optimizer: Optimizer) -> list[float]:
    """Return each group's full rate, remembered in the group as ``initial_lr``."""
    return [full_rate(group, optimizer) for group in optimizer.param_groups]


class ClosedForm:
    """Sets rates from a ``Schedule``.

    Args:
        optimizer: its groups are set; one that joins later has its own full rate.
        schedule: the configured schedule.
    Attributes:
        settings: the schedule's fields and the full rates of the groups, as plain data:
            equal settings give equal runs.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        self._optimizer = optimizer
        self._configured = schedule
        self._base_lrs = base_lrs(optimizer)
        self.settings = self._configured_settings()
        self._schedule = schedule
        self._advances = self._began_at = 0
        #: What was set last: id of a group -> the group, held so that no other takes
        #: its id, its rate, and its full rate then.
        self._given: dict[int, tuple[dict[str, Any], float, float]] = {}
        self._is_warned = False

    def as_saved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a checkpoint: none of them lie in its groups."""
        return dict(settings)

    def start(self) -> None:
        """Begin at the first update; a full rate that was set since is followed."""
        self.settings = self._configured_settings()
        self._warn_of_set_rates()
        groups = self._optimizer.param_groups
        for group, rate in zip(groups, self._base_lrs, strict=False):
            # A group that is not in it came with a loaded state, as did its full rate.
            if id(group) not in self._given:
                group["initial_lr"] = rate
        self._begin(self._configured, 0, 0)

    def advance(self, value: float | None = None) -> None:
        """Set the rates of the next update; ``value`` is a plateau's alone."""
        self._warn_of_set_rates()
        self._advances += 1
        self._apply()

    def join(self, group: dict[str, Any]) -> None:
        """Give a group that joins the run its rate from its first update on."""
        self._set_rate(group)

    def progress(self) -> dict[str, Any]:
        """Return how often it advanced, where it began, its warmup, and full rates.

        Those of groups may have been set in the run; one that joins brings its own.
        """
        groups = self._optimizer.param_groups[: len(self._base_lrs)]
        return {
            "base_lrs": [full_rate(group, self._optimizer) for group in groups],
            "advances": self._advances,
            "began_at": self._began_at,
            "warmup": self._schedule.warmup,
        }

    def check(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Look at every field of the schedule; change nothing.

        Raises:
            CheckpointError: no run can have saved it.
        """
        check_closed_form(settings, progress)

    def resume(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Go on exactly as the run that saved these, with its settings."""
        fields = dict(settings)
        configured = fields.pop("base_lrs")
        # They may have been set in the run; earlier releases saved none of later.
        self._set_base_lrs(progress.get("base_lrs", configured))
        self.settings = dict(settings)
        schedule = Schedule(**fields)
        # Of a release that kept it for the whole run wherever it began.
        warmup = progress.get("warmup", schedule.warmup)
        schedule = replace(schedule, warmup=warmup)
        self._begin(schedule, progress["began_at"], progress["advances"])

    def restart(self, place: int, warmup: int) -> None:
        """Begin anew here; a total shrinks to the advances that are left.

        Args:
            place: advances of the run, as planned now, that are over.
            warmup: advances from here until the full rate.
        """
        self._set_base_lrs(self._base_lrs)
        self._begin(replace(self._configured, warmup=warmup), place, place)

    def rescale(self, progress: Mapping[str, Any], place: int) -> None:
        """Go on as if the whole run had been configured as it is now.

        Args:
            progress: as saved.
            place: advances of the run, as planned now, that are over.
        """
        self._set_base_lrs(self._base_lrs)
        self._begin(self._configured, 0, place)

    def _configured_settings(self) -> dict[str, Any]:
        return {**asdict(self._configured), "base_lrs": self._base_lrs}

    def _begin(self, schedule: Schedule, began_at: int, advances: int) -> None:
        if schedule.total is not None:
            schedule = replace(schedule, total=max(1, schedule.total - began_at))
        self._schedule = schedule
        self._began_at, self._advances = began_at, advances
        self._apply()

    def _set_base_lrs(self, rates: list[float]) -> None:
        for group, rate in zip(self._optimizer.param_groups, rates, strict=False):
            group["initial_lr"] = rate

    def _apply(self) -> None:
        self._given.clear()
        for group in self._optimizer.param_groups:
            self._set_rate(group)

    def _set_rate(self, group: dict[str, Any]) -> None:
        advances = self._advances - self._began_at
        full = full_rate(group, self._optimizer)
        rate = self._schedule.lr_at(advances, full)
        set_lr(group, rate)
        self._given[id(group)] = group, rate, full

    def _warn_of_set_rates(self) -> None:
        """Warn, once, of a rate that somebody else has set: it is about to be lost.

        It may be that of a group, set after it had joined. A resumed run could not tell
        it from a rate that a schedule has left. A rate that is a tensor is not looked
        at: that would wait for its device at each advance.
        """
        if self._is_warned:
            return
        for number, group in enumerate(self._optimizer.param_groups):
            given, now = self._given.get(id(group)), group["lr"]
            if given is None or now is given[1] or isinstance(now, Tensor):
                continue
            _, rate, full_then = given
            full = full_rate(group, self._optimizer)
            if not is_same(now, rate) and is_same(full, full_then):
                self._is_warned = True
                logger.warning(
                    "lr_scheduling: the rate of parameter group %d was set to %g, but "
                    "the schedule had set %g and sets it anew from a full rate of %g; "
                    "set the group's initial_lr, its full rate, or give that to "
                    "add_param_group, as 'lr'",
                    *(number, now, rate, full),
                )
                return


def in_order(saved: Any, places: Sequence[int | None]) -> Any:
    """Return saved settings or progress with their lists by group in another order.

    Args:
        saved: as a driver gave it; schedulers inside others included.
        places: of this run's groups in the saved one. Unless both have the same groups,
            nothing is moved: then the settings differ, too.
    """
    if not places or set(places) != set(range(len(places))):
        return saved
    if isinstance(saved, Mapping):
        return {
            name: [value[at] for at in places if at is not None]
            if name in BY_GROUP
            and isinstance(value, list)
            and len(value) == len(places)
            else in_order(value, places)
            for name, value in saved.items()
        }
    if isinstance(saved, list):
        return [in_order(each, places) for each in saved]
    return saved


def differences(
    configured: Mapping[str, Any], saved: Mapping[str, Any]
) -> dict[str, str]:
    """Return the settings that differ: name -> what it is here and what it was, told.

    What one side does not know is not compared: torch's schedulers keep other things
    from release to release.
    """
    return {
        name: f"{AS_WRITTEN.get(name, name)} is {_told(name, here)} now but "
        f"{_told(name, saved[name])} in the checkpoint"
        for name, here in configured.items()
        if name in saved and here != saved[name]
    }


def _told(name: str, value: Any) -> str:
    """Return a setting as it is written: one value where all groups have the same."""
    is_by_group = name in BY_GROUP and isinstance(value, list)
    is_one = is_by_group and value and all(each == value[0] for each in value)
    return repr(value[0] if is_one else value)
