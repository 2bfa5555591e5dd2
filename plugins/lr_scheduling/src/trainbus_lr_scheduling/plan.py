"""What a schedule says of a run that is only planned."""

from __future__ import annotations

from trainbus_lr_scheduling.checks import planned_advances
from trainbus_lr_scheduling.schedules import Schedule
from training.plugin import Plan, PlannedRun, count, table

#: Shares of the run whose learning rate is shown.
MILESTONES = (0.25, 0.5, 0.75)


def plan_of_schedule(
    run: PlannedRun, name: str, schedule: Schedule, interval: str
) -> Plan:
    """Return the rates of some updates, and what comes too late to matter."""
    planned = planned_advances(run, interval)
    assert planned is not None, "a run that is planned has a length"
    is_per_epoch = interval == "epoch"
    unit = "epoch" if is_per_epoch else "update"
    conflicts = []
    if schedule.warmup >= planned:
        conflicts.append(
            f"{name}.warmup is {count(schedule.warmup, unit)}, but the run has "
            f"{planned:,}: the full rate is never reached"
        )
    if schedule.step_size is not None and schedule.step_size >= planned:
        conflicts.append(
            f"{name}.step_size is {count(schedule.step_size, unit)}, but the run has "
            f"{planned:,}: the rate never falls"
        )
    return Plan({"rate": _rates(run, schedule, is_per_epoch)}, {}, conflicts)


def plan_of_plateau(run: PlannedRun, name: str, monitor: str, patience: int) -> Plan:
    """Return that no plan can tell when, and what keeps it from ever."""
    conflicts = run.metric_conflicts(monitor, f"{name}.monitor")
    checks = run.checks(monitor) if run.is_counted else []
    if checks and len(checks) <= patience + 1:
        conflicts.append(
            f"{name}.patience is {patience}, but the run has only "
            f"{count(len(checks), 'check')} of {monitor}: the rate never falls"
        )
    told = f"{run.lr:g}, lowered by {monitor}: no plan can tell when"
    return Plan({"rate": [told]}, {}, conflicts)


def _rates(run: PlannedRun, schedule: Schedule, is_per_epoch: bool) -> list[str]:
    total, length = run.total_steps, run.steps_per_epoch
    shown = {1: "first", total: "last"}
    for share in MILESTONES:
        shown.setdefault(max(1, round(share * total)), f"{share:.0%} of the run")
    warm = schedule.warmup * (length if is_per_epoch else 1) + 1
    if 1 < warm <= total:
        shown[warm] = "warmup done"
    rows = []
    for update, note in sorted(shown.items()):
        advances = (update - 1) // length if is_per_epoch else update - 1
        rows.append([f"{update:,}", f"{schedule.lr_at(advances, run.lr):.4g}", note])
    return table(["update", f"{schedule.type} rate", ""], rows, ">><")
