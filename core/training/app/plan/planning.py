"""Ask plugins what they would do in a run, and say which settings it would refuse."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.app.config.schema import TrainingConfig
from training.builtin.compiling import (
    RECORDER,
    compile_options,
    has_recorder,
    refuse_two_recorders,
)
from training.builtin.defaults import recorder
from training.builtin.placing import may_divide
from training.builtin.run_record import folder_mistake
from training.builtin.unmeasured import may_measure
from training.bus.bus import Bus
from training.errors import TrainbusError
from training.files.named_paths import barrier
from training.loop.metrics import owners_of
from training.messages.error_texts import text_of
from training.messages.tables import count
from training.planned.planned_run import NOBODY_EVALUATES, Plan, PlannedRun

__all__ = [
    "ask_for_plans",
    "evaluated",
    "file_conflicts",
    "length_conflicts",
    "metric_conflicts",
    "setting_conflicts",
    "validation_conflicts",
]

#: What a plugin that measures a task's metrics reports beside them.
LOSS = "val_loss"


def evaluated(
    bus: Bus,
    run: PlannedRun,
    of_task: Sequence[str] = (),
    kinds: Collection[str] | None = None,
) -> PlannedRun:
    """Return ``run`` with when it is evaluated, and what that may measure.

    Who does not say when is taken to measure at each epoch's end, and at the run's.

    Args:
        bus: of the run's plugins.
        run: not asked yet.
        of_task: metrics of the run's task; the first is also told by kind.
        kinds: of its validation rows, as metrics call them; None: not known.
    """
    names = [impl.plugin_name for impl in bus.listeners("evaluate")]
    steps: set[int] = set()
    if run.is_counted:
        usual = {*run.epoch_ends, run.total_steps}
        said = dict(bus.collect("plan_evaluations", run=run))
        for name in names:
            own = said.get(name)
            steps.update(usual if own is None else own)
    measured = _metrics(bus, names, of_task)
    # Another plugin may deliver more than it declares, such as a value by loader.
    by_task = [getattr(bus.plugins[name], "chooses_metrics", {}) for name in names]
    is_exact = measured is not None and kinds is not None and all(by_task)
    if measured and kinds and of_task and of_task[0] in measured:
        measured += [f"{of_task[0]}/{kind}" for kind in sorted(kinds)]
    return replace(run, evaluations=sorted(steps), metrics=measured, is_exact=is_exact)


def _metrics(bus: Bus, names: list[str], of_task: Sequence[str]) -> list[str] | None:
    """Return what may be measured; None where one that evaluates does not say."""
    declared = [_of(bus.plugins[name], of_task) for name in names]
    if not all(declared):
        return None
    measured = dict.fromkeys(metric for metrics in declared for metric in metrics)
    return ["train_loss", *measured] if names else []


def _of(plugin: Any, of_task: Sequence[str]) -> tuple[str, ...]:
    """Return what one plugin may measure: all of the task's, if it chooses none."""
    options = getattr(plugin, "chooses_metrics", {})
    is_open = any(getattr(plugin, option, None) is None for option in options)
    names: tuple[str, ...] = tuple(getattr(plugin, "produces", ()) or ())
    if not (is_open and of_task):
        return names
    # What else it produces is measured without a task, or is another task's.
    own = {LOSS}.union(*options.values())
    return (*(name for name in names if name in own), *of_task)


def ask_for_plans(bus: Bus, run: PlannedRun) -> list[Plan]:
    """Return what each plugin would do, in the order of ``run.plugins``."""
    plans = dict(bus.collect("plan", run=run))
    return [plan for name in run.plugins if (plan := plans.get(name)) is not None]


def setting_conflicts(
    settings: TrainingConfig, plugins: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what the trainer of a run would refuse to be built with, in its words.

    Args:
        settings: of the run; the device need not be one of this machine.
        plugins: those that take part, by name.
    """
    taking_part = dict(plugins)
    try:
        if settings.cuda_graphs and not has_recorder(plugins):
            taking_part[RECORDER] = recorder()
        refuse_two_recorders(compile_options(settings.compile), taking_part)
    except TrainbusError as error:
        yield text_of(error)


def file_conflicts(save_dir: Path, files: Iterable[Path]) -> Iterator[str]:
    """Yield a sentence for each place of files that cannot be written.

    Args:
        save_dir: folder of the run.
        files: all that would be written, in it and elsewhere.
    """
    if mistake := folder_mistake(save_dir):
        yield mistake
    others = {path.parent for path in files if not path.is_relative_to(save_dir)}
    for folder in sorted(others):
        if found := barrier(folder):
            yield (
                f"nothing can be written to {str(folder)!r}, for {str(found)!r} is no "
                "folder that can be written; choose another one"
            )


def metric_conflicts(bus: Bus) -> Iterator[str]:
    """Yield what a run would refuse of the metrics that plugins declare, in its words.

    One that chooses among a task's may declare more than it will deliver.
    """
    names = dict.fromkeys(impl.plugin_name for impl in bus.listeners("evaluate"))
    declared = {
        name: getattr(bus.plugins[name], "produces", ()) or ()
        for name in names
        if not getattr(bus.plugins[name], "chooses_metrics", {})
    }
    try:
        owners_of(declared)
    except TrainbusError as error:
        yield f"{text_of(error)} (where both deliver it)"


def validation_conflicts(run: PlannedRun) -> Iterator[str]:
    """Yield a sentence if rows would be read for a measurement that nobody makes."""
    if run.has_validation and not any(map(may_measure, run.plugins.values())):
        yield NOBODY_EVALUATES


def length_conflicts(run: PlannedRun) -> Iterator[str]:
    """Yield a sentence for each limit or number of the run that cannot hold."""
    if run.max_steps is not None and run.max_steps > run.total_steps:
        yield (
            f"training.max_steps is {run.max_steps:,}, but num_epochs "
            f"{run.num_epochs} ends the run after {count(run.total_steps, 'step')}"
        )
    if run.processes > 1 and not any(map(may_divide, run.plugins.values())):
        yield (
            f"{run.processes} processes are refused: no plugin divides the run among "
            "them; enable the plugin 'distributed'"
        )
    if run.gradient_accumulation_steps > run.batches_per_epoch:
        yield (
            f"training.gradient_accumulation_steps is "
            f"{run.gradient_accumulation_steps}, but an epoch has only "
            f"{count(run.batches_per_epoch, 'batch')}: every window is a partial one"
        )
