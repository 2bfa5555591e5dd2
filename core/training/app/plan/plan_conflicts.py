"""Settings that are valid one by one and do not go together in the run as planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.app.plan.planned_run import Rehearsal
from training.app.tables import count
from training.errors import ConfigError, did_you_mean
from training.loop.length import epochs_begun

__all__ = ["find_conflicts"]


def find_conflicts(run: Rehearsal, has_validation: bool) -> list[str]:
    """Return a sentence for each contradiction, none if the plan is sound.

    Args:
        run: the planned run with its plugins.
        has_validation: whether there are validation rows.
    """
    found = [*_limits(run), *_producers(run, has_validation)]
    for name, plugin in run.plugins.items():
        if hasattr(plugin, "evaluate") or hasattr(plugin, "rehearse"):
            found += _cadence(run, name, plugin)
        if hasattr(getattr(plugin, "rule", None), "patience"):
            found += _patience(run, name, plugin.rule)
        if hasattr(plugin, "rehearse"):
            found += _saves(run, name, plugin)
        if hasattr(plugin, "schedule"):
            found += _schedule(run, name, plugin)
    return found


def _limits(run: Rehearsal) -> Iterator[str]:
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


def _producers(run: Rehearsal, has_validation: bool) -> Iterator[str]:
    evaluators = [n for n, p in run.plugins.items() if hasattr(p, "evaluate")]
    if evaluators and not has_validation and "evaluation" in evaluators:
        yield "evaluation is enabled, but data.validation names no rows"
    produced = _produced(run, evaluators)
    for name, plugin in run.plugins.items():
        monitor = getattr(plugin, "monitor", None)
        if monitor in (None, "train_loss") or not getattr(plugin, "is_plateau", True):
            continue
        if not evaluators:
            yield f"{name}.monitor is {monitor!r}, but no plugin evaluates"
        elif produced and monitor.partition("/")[0] not in produced:
            yield (
                f"{name}.monitor is {monitor!r}, but this run reports: "
                f"{', '.join(produced)}{did_you_mean(monitor, produced)}"
            )


def _produced(run: Rehearsal, evaluators: list[str]) -> list[str]:
    """Return what may be reported; [] where an evaluator does not say."""
    declared = [getattr(run.plugins[name], "produces", ()) for name in evaluators]
    if not all(declared):
        return []
    return ["train_loss", *dict.fromkeys(n for names in declared for n in names)]


def _cadence(run: Rehearsal, name: str, plugin: Any) -> Iterator[str]:
    settings = getattr(plugin, "cadence", plugin)
    for option in ("every_n_steps", "every_n_epochs", "save_frequency"):
        value = getattr(settings, option, None)
        limit = run.total_steps if option == "every_n_steps" else run.num_epochs
        if isinstance(value, int) and value > limit:
            unit = "step" if option == "every_n_steps" else "epoch"
            yield f"{name}.{option} is {value:,}, but the run has {count(limit, unit)}"


def _patience(run: Rehearsal, name: str, rule: Any) -> Iterator[str]:
    checks = run.checks(rule.monitor) if run.is_counted else []
    if checks and len(checks) <= max(1, rule.patience):
        yield (
            f"{name}.patience is {rule.patience}, but the run has only "
            f"{count(len(checks), 'check')} of {rule.monitor}: it can never stop"
        )
    if rule.min_epochs > run.num_epochs or rule.min_steps > run.total_steps:
        option = "min_epochs" if rule.min_epochs > run.num_epochs else "min_steps"
        yield f"{name}.{option} is {getattr(rule, option):,}: longer than the run"


def _saves(run: Rehearsal, name: str, plugin: Any) -> Iterator[str]:
    if plugin.monitor is None or not run.is_counted or not run.checks(plugin.monitor):
        return
    stops = [
        (stop.reason, stop.epoch, stop.step, stop.is_stopping, is_fresh)
        for stop, is_fresh in run.fresh_stops(plugin.monitor)
    ]
    result = plugin.rehearse(stops, True)
    if result.unmeasured:
        yield (
            f"{name} saves {count(len(result.unmeasured), 'time')} between "
            f"evaluations, first after step {result.unmeasured[0][1]:,}: there is no "
            f"{plugin.monitor} to rank these by"
        )
    if not result.num_ranked and plugin.ranking.keep != 0:
        yield (
            f"{name} never saves when {plugin.monitor} is fresh, so nothing is ever "
            "the best; let save_frequency meet the evaluations"
        )


def _schedule(run: Rehearsal, name: str, plugin: Any) -> Iterator[str]:
    try:
        schedule = plugin.schedule(run)
    except ConfigError as error:
        yield str(error)
        return
    if schedule is None:
        checks = run.checks(plugin.monitor) if run.is_counted else []
        if checks and len(checks) <= plugin.patience + 1:
            yield (
                f"{name}.patience is {plugin.patience}, but the run has only "
                f"{count(len(checks), 'check')} of {plugin.monitor}: the rate never "
                "falls"
            )
        return
    per_epoch = plugin.interval == "epoch"
    epochs = epochs_begun(run.total_steps, run.steps_per_epoch)
    planned = epochs if per_epoch else run.total_steps
    unit = "epoch" if per_epoch else "update"
    if schedule.warmup >= planned:
        yield (
            f"{name}.warmup is {count(schedule.warmup, unit)}, but the run has "
            f"{planned:,}: the full rate is never reached"
        )
    if schedule.step_size is not None and schedule.step_size >= planned:
        yield (
            f"{name}.step_size is {count(schedule.step_size, unit)}, but the run has "
            f"{planned:,}: the rate never falls"
        )
