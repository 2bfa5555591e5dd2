"""What a run would do, for people, without doing any of it.

Rows are read and plugins constructed, as in a run; there is no model, no processor and
no file written. What depends on values that only training gives is said as a range.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import training
from training.app.config.load import Config
from training.app.plan.planning import (
    ask_for_plans,
    evaluated,
    file_conflicts,
    length_conflicts,
    metric_conflicts,
    setting_conflicts,
    validation_conflicts,
)
from training.bus.bus import Bus
from training.discovery.parts import named_part
from training.discovery.specs import build_plugins
from training.errors import ConfigError
from training.files.record_names import RECORD
from training.hardware.device import named_device
from training.hardware.launch import number_started
from training.messages.error_texts import shown
from training.messages.tables import count
from training.planned.length import epochs_for, num_windows
from training.planned.planned_run import Plan, PlannedRun
from training.recipes.family import ModelFamily
from training.recipes.kinds import slug
from training.recipes.task import Task

__all__ = ["describe_plan"]

MOST_STEPS_SHOWN = 8


def describe_plan(config: Config, processes: int | None = None) -> list[str]:
    """Return the lines of a plan; trains nothing, writes nothing that stays.

    Args:
        config: of the run.
        processes: that would compute it; None: as many as were started.
    Raises:
        TrainbusError: the configuration, a plugin's options or the rows do not do.
    """
    from training.app.building.recipe import make_recipe

    plugins = build_plugins(config.plugins.values(), config.place)
    bus = Bus()
    bus.register_all(plugins)
    task, family = make_recipe(config, plugins)
    rows, batches, beginning, kinds, alike = _count_data(config, task, family)
    settings = config.training
    if settings.device is not None:
        # It need not be one of this machine.
        named_device(settings.device, config.place(("training", "device")))
    steps = num_windows(batches, settings.gradient_accumulation_steps)
    run = evaluated(
        bus,
        PlannedRun(
            batches,
            settings.num_epochs or epochs_for(settings.max_steps, steps),
            settings.max_steps,
            settings.gradient_accumulation_steps,
            settings.save_dir,
            settings.optimizer.lr,
            dict(plugins),
            has_validation="validation" in rows,
            batch_size=config.data.batch_size,
            processes=processes or number_started(),
        ),
        task.metrics,
        kinds,
    )
    plans = ask_for_plans(bus, run)
    name, _ = named_part(config.task, "task")
    title = f"trainbus {training.__version__}: plan of {name}; nothing is run"
    parts = [
        (
            "rows",
            [
                ", ".join(f"{n:,} {split}" for split, n in rows.items()),
                *([str(beginning)] if beginning else []),
            ],
        ),
        ("updates", _updates(run, bus)),
        ("evaluations", _evaluations(run)),
        ("stop", _told(plans, "stop") or ["only when the plan is done"]),
        ("rate", _told(plans, "rate") or [f"{run.lr:g} throughout"]),
        ("files", _files(run, plans)),
        ("deleted", _told(plans, "deleted") or ["nothing"]),
    ]
    labels = dict.fromkeys(label for plan in plans for label in plan.lines)
    parts += [(each, _told(plans, each)) for each in labels if each not in dict(parts)]
    lines = [title]
    for label, text in parts:
        first, *more = text
        lines.append(f"  {label:<12} {first}")
        lines += [f"  {'':<12} {line}" for line in more]
    conflicts = [
        *alike,
        *(beginning.never_drawn(run.length.epochs_begun) if beginning else []),
        *setting_conflicts(settings, run.plugins),
        *length_conflicts(run),
        *validation_conflicts(run),
        *metric_conflicts(bus),
        *(sentence for plan in plans for sentence in plan.conflicts),
        *file_conflicts(run.save_dir, [path for plan in plans for path in plan.files]),
    ]
    lines += ["", "conflicts" if conflicts else "conflicts: none found"]
    return lines + [f"  {sentence}" for sentence in conflicts]


def _count_data(
    config: Config, task: Task, family: ModelFamily
) -> tuple[dict[str, int], int, Any, set[str] | None, list[str]]:
    """Return rows by split, batches, which rows come first, kinds, and conflicts.

    Synthetic pictures that were not drawn yet are drawn in a temporary folder.

    Raises:
        ConfigError: there is nothing to train on, or no full batch.
    """
    from training.app.building.components import make_pipeline, require_training_rows

    require_training_rows(config)
    data = config.data
    with tempfile.TemporaryDirectory() as temporary:
        if data.synthetic is not None and not _is_drawn(config):
            synthetic = data.synthetic.model_copy(update={"folder": Path(temporary)})
            data = data.model_copy(update={"synthetic": synthetic})
        pipeline = make_pipeline(config, data, task, family)
        splits = ("train", "validation", "test")
        rows = {split: len(pipeline.rows(split)) for split in splits}
        batches: int = pipeline.num_batches("train")
        beginning = pipeline.beginning()
        kinds = None  # of rows that are not all read they are not known
        if not pipeline.is_indexed("validation"):
            judged = pipeline.rows("validation")
            kinds = {slug(row["kind"]) for row in judged if row.get("kind")}
        target, alike = task.target, []
        if not pipeline.is_indexed("train"):
            learnt = {str(row.get(target)) for row in pipeline.rows("train")}
            if len(learnt) == 1:
                alike.append(
                    f"every training row has the same {target}, {shown(*learnt)}: "
                    "there is nothing to tell apart; add rows with another one"
                )
    if batches == 0:
        raise ConfigError(
            f"{count(rows['train'], 'training row')} make no batch of "
            f"{data.batch_size}; lower data.batch_size, or set data.drop_last to false"
        )
    return (
        {split: number for split, number in rows.items() if number},
        batches,
        beginning,
        kinds,
        alike,
    )


def _is_drawn(config: Config) -> bool:
    folder = config.data.drawn_in(config.training.save_dir)
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def _updates(run: PlannedRun, bus: Bus) -> list[str]:
    per_epoch, size = run.steps_per_epoch, run.gradient_accumulation_steps
    tail = run.length.last_window
    lines = [
        f"{run.total_steps:,} in all, if none is skipped",
        f"{count(run.num_epochs, 'epoch')} of {count(run.batches_per_epoch, 'batch')}: "
        f"{count(per_epoch, 'step')} of {count(size, 'batch')}",
    ]
    if tail != size:
        lines[1] += f", the last one of {tail}, stepped with its own weight"
    if run.max_steps is not None and run.total_steps == run.max_steps:
        epochs, rest = divmod(run.total_steps, per_epoch)
        where = f"{count(rest, 'step')} into epoch {epochs + 1}"
        lines.append(f"max_steps ends it {where}")
    # They are not asked for theirs: they would need the run's.
    replacing = [impl.plugin_name for impl in bus.listeners("wrap_dataloader")]
    return lines + [
        f"{name} may replace the batches, and change these numbers"
        for name in replacing
        if getattr(bus.plugins[name], "alters_training", False)
    ]


def _evaluations(run: PlannedRun) -> list[str]:
    if not run.is_counted:
        return [run.uncounted]
    steps = list(run.evaluations)
    if not steps:
        return ["none"]
    return [f"{len(steps):,}: after steps {_some(steps)}"]


def _told(plans: Sequence[Plan], label: str) -> list[str]:
    """Return what all plugins say under one label."""
    return [line for plan in plans for line in plan.lines.get(label, ())]


def _files(run: PlannedRun, plans: Sequence[Plan]) -> list[str]:
    """Return what is written, with what becomes of what is there already."""
    files = {run.save_dir / name: "" for name in RECORD}
    for plan in plans:
        files |= plan.files
    return [
        f"{path}: {remark}"
        if remark
        else str(path) + ", which exists: kept aside" * path.exists()
        for path, remark in files.items()
    ]


def _some(steps: list[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    if len(shown) > MOST_STEPS_SHOWN:
        shown = [*shown[: MOST_STEPS_SHOWN - 2], "...", shown[-1]]
    return ", ".join(shown)
