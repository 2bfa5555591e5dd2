"""Ask plugins what they would do in a run; its own limits go together or do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from training.bus.bus import Bus
from training.messages.tables import count
from training.planned.planned_run import Plan, PlannedRun

__all__ = ["ask_for_plans", "evaluated", "length_conflicts"]


def evaluated(bus: Bus, run: PlannedRun) -> PlannedRun:
    """Return ``run`` with when it is evaluated, and what that may measure.

    Who does not say when is taken to measure at each epoch's end, and at the run's.
    """
    names = [impl.plugin_name for impl in bus.listeners("evaluate")]
    steps: set[int] = set()
    if run.is_counted:
        usual = {*run.epoch_ends, run.total_steps}
        said = dict(bus.collect("plan_evaluations", run=run))
        for name in names:
            own = said.get(name)
            steps.update(usual if own is None else own)
    return replace(run, evaluations=sorted(steps), metrics=_metrics(bus, names))


def _metrics(bus: Bus, names: list[str]) -> list[str] | None:
    """Return what may be measured; None where one that evaluates does not say."""
    declared = [getattr(bus.plugins[name], "produces", ()) for name in names]
    if not all(declared):
        return None
    measured = dict.fromkeys(metric for metrics in declared for metric in metrics)
    return ["train_loss", *measured] if names else []


def ask_for_plans(bus: Bus, run: PlannedRun) -> list[Plan]:
    """Return what each plugin would do, in the order of ``run.plugins``."""
    plans = dict(bus.collect("plan", run=run))
    return [plan for name in run.plugins if (plan := plans.get(name)) is not None]


def length_conflicts(run: PlannedRun) -> Iterator[str]:
    """Yield a sentence for each limit of the run that never binds."""
    if run.max_steps is not None and run.max_steps > run.total_steps:
        yield (
            f"training.max_steps is {run.max_steps:,}, but num_epochs "
            f"{run.num_epochs} ends the run after {count(run.total_steps, 'step')}"
        )
    if run.gradient_accumulation_steps > run.batches_per_epoch:
        yield (
            f"training.gradient_accumulation_steps is "
            f"{run.gradient_accumulation_steps}, but an epoch has only "
            f"{count(run.batches_per_epoch, 'batch')}: every window is a partial one"
        )
