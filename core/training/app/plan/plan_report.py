"""What a run would do, for people, without doing any of it.

Rows are read and plugins constructed, as in a run; there is no model, no processor and
no file written. What depends on values that only training gives is said as a range.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import training
from training.app.config.load import Config, plugin_specs
from training.app.plan.plan_conflicts import find_conflicts
from training.app.plan.planned_run import MOST_STEPS, Rehearsal
from training.app.tables import count, table
from training.builtin.run_record import CONFIG, HISTORY, SUMMARY
from training.discovery.specs import build_plugins
from training.errors import ConfigError
from training.hardware.device import named_device
from training.loop.length import last_window

__all__ = ["describe_plan"]

#: Shares of the run whose learning rate is shown.
MILESTONES = (0.25, 0.5, 0.75)
MOST_STEPS_SHOWN = 8
UNCOUNTED = f"not counted: the run has more than {MOST_STEPS:,} steps"


def describe_plan(config: Config) -> list[str]:
    """Return the lines of a plan; trains nothing, writes nothing that stays.

    Raises:
        TrainbusError: the configuration, a plugin's options or the rows do not do.
    """
    plugins = dict(build_plugins(plugin_specs(config), config.place))
    rows, batches = _count_data(config)
    settings = config.training
    if settings.device is not None:
        named_device(settings.device)  # it need not be one of this machine
    run = Rehearsal(
        batches,
        settings.num_epochs,
        settings.max_steps,
        settings.gradient_accumulation_steps,
        settings.save_dir,
        plugins,
    )
    title = f"trainbus {training.__version__}: plan of {config.task}; nothing is run"
    parts = [
        ("rows", [", ".join(f"{n:,} {split}" for split, n in rows.items())]),
        ("updates", _updates(run)),
        ("evaluations", _evaluations(run)),
        ("stop", _stops(run)),
        ("rate", _rates(run, settings.optimizer.lr)),
        ("files", _files(run)),
        ("deleted", _deleted(run)),
    ]
    lines = [title]
    for label, text in parts:
        first, *more = text
        lines.append(f"  {label:<12} {first}")
        lines += [f"  {'':<12} {line}" for line in more]
    conflicts = find_conflicts(run, has_validation="validation" in rows)
    lines += ["", "conflicts" if conflicts else "conflicts: none found"]
    return lines + [f"  {sentence}" for sentence in conflicts]


def _count_data(config: Config) -> tuple[dict[str, int], int]:
    """Return rows by split and the batches of an epoch.

    Synthetic pictures that were not drawn yet are drawn in a temporary folder.

    Raises:
        ConfigError: there is nothing to train on, or no full batch.
    """
    from training.app.building.components import import_ours

    data = config.data
    if data.train is None and data.synthetic is None:
        raise ConfigError(
            f"{config.place(('data', 'train'))} is missing; name the rows to train on"
        )
    with tempfile.TemporaryDirectory() as temporary:
        if data.synthetic is not None and not _is_drawn(config):
            synthetic = data.synthetic.model_copy(update={"folder": Path(temporary)})
            data = data.model_copy(update={"synthetic": synthetic})
        folder = config.training.save_dir / "pictures"
        pipeline = import_ours("data.data_pipeline").DataPipeline(data, folder=folder)
        splits = ("train", "validation", "test")
        rows = {split: len(pipeline.rows(split)) for split in splits}
        batches: int = pipeline.num_batches("train")
    if batches == 0:
        raise ConfigError(
            f"{count(rows['train'], 'training row')} make no batch of "
            f"{data.batch_size}; lower data.batch_size, or set data.drop_last to false"
        )
    return {split: number for split, number in rows.items() if number}, batches


def _is_drawn(config: Config) -> bool:
    synthetic = config.data.synthetic
    assert synthetic is not None
    folder = synthetic.folder or config.training.save_dir / "pictures"
    return folder.is_dir() and any(folder.iterdir())


def _updates(run: Rehearsal) -> list[str]:
    per_epoch, size = run.steps_per_epoch, run.gradient_accumulation_steps
    tail = last_window(run.batches_per_epoch, size)
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
    return lines


def _evaluations(run: Rehearsal) -> list[str]:
    if not run.is_counted:
        return [UNCOUNTED]
    steps = [stop.step for stop in run.stops() if stop.is_evaluated]
    if not steps:
        return ["none"]
    return [f"{len(steps):,}: after steps {_some(steps)}"]


def _stops(run: Rehearsal) -> list[str]:
    """Return when each early stopper could act first."""
    lines = []
    for name, plugin in run.plugins.items():
        rule: Any = getattr(plugin, "rule", None)
        if not hasattr(rule, "patience"):
            continue
        if not run.is_counted:
            lines.append(f"{name} ({rule.monitor}): {UNCOUNTED}")
            continue
        checks = [
            stop
            for number, stop in enumerate(run.checks(rule.monitor), 1)
            if number > max(1, rule.patience)
            and stop.epoch >= rule.min_epochs
            and stop.step >= rule.min_steps
        ]
        when = f"at the earliest after step {checks[0].step:,}" if checks else "never"
        lines.append(f"{name} ({rule.monitor}): {when}")
    return lines or ["only when the plan is done"]


def _rates(run: Rehearsal, full: float) -> list[str]:
    """Return the learning rate of some updates."""
    for plugin in run.plugins.values():
        if hasattr(plugin, "schedule"):
            try:
                schedule = plugin.schedule(run)
            except ConfigError:
                return ["unknown: see the conflicts"]
            if schedule is None:
                return [f"{full:g}, lowered by {plugin.monitor}: no plan can tell when"]
            return _schedule_table(run, plugin, schedule, full)
    return [f"{full:g} throughout"]


def _schedule_table(
    run: Rehearsal, plugin: Any, schedule: Any, full: float
) -> list[str]:
    total = run.total_steps
    is_per_epoch = plugin.interval == "epoch"

    def advances(update: int) -> int:
        return (update - 1) // run.steps_per_epoch if is_per_epoch else update - 1

    shown = {1: "first", total: "last"}
    for share in MILESTONES:
        shown.setdefault(max(1, round(share * total)), f"{share:.0%} of the run")
    warm = schedule.warmup * (run.steps_per_epoch if is_per_epoch else 1) + 1
    if 1 < warm <= total:
        shown[warm] = "warmup done"
    rows = [
        [f"{update:,}", f"{schedule.lr_at(advances(update), full):.4g}", note]
        for update, note in sorted(shown.items())
    ]
    return table(["update", f"{plugin.type} rate", ""], rows, ">><")


def _files(run: Rehearsal) -> list[str]:
    """Return what is written, with what becomes of what is there already."""
    files = [run.save_dir / name for name in (CONFIG, HISTORY, SUMMARY)]
    counts: dict[Path, str] = {}
    for plugin in run.plugins.values():
        planned = getattr(plugin, "planned_files", None)
        if planned is None:
            continue
        paths = planned(run.save_dir)
        files += paths
        if hasattr(plugin, "rehearse") and run.is_counted:
            best, worst = _rehearsed(run, plugin)
            ranked, last = paths
            counts[ranked] = _range(best.num_ranked, worst.num_ranked)
            counts[last] = _range(best.num_last, worst.num_last)
    return [
        str(path) + counts.get(path, ", which exists: kept aside" * path.exists())
        for path in files
    ]


def _deleted(run: Rehearsal) -> list[str]:
    """Return how many checkpoints are replaced, and how many there are at a time."""
    lines = []
    for name, plugin in run.plugins.items():
        if hasattr(plugin, "rehearse") and not run.is_counted:
            lines.append(f"{name}: {UNCOUNTED}")
        elif hasattr(plugin, "rehearse"):
            found = _rehearsed(run, plugin)
            deleted = sorted(each.num_deleted for each in found)
            most = max(each.most_kept for each in found)
            lines.append(
                f"{name}: {_between(*deleted)} of its own checkpoints; at most "
                f"{most:,} exist at a time"
            )
    return lines or ["nothing"]


def _rehearsed(run: Rehearsal, plugin: Any) -> tuple[Any, Any]:
    """Return what is saved if every value is the best so far, and if only the first."""
    stops = [
        (stop.reason, stop.epoch, stop.step, stop.is_stopping, is_fresh)
        for stop, is_fresh in run.fresh_stops(plugin.monitor)
    ]
    return plugin.rehearse(stops, True), plugin.rehearse(stops, False)


def _range(one: int, other: int) -> str:
    return f": {_between(*sorted((one, other)))} written"


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _some(steps: list[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    if len(shown) > MOST_STEPS_SHOWN:
        shown = [*shown[: MOST_STEPS_SHOWN - 2], "...", shown[-1]]
    return ", ".join(shown)
