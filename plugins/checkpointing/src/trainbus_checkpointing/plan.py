"""What checkpointing says of a run that is only planned."""

from __future__ import annotations

from pathlib import Path

from trainbus_checkpointing.cadence import Boundary, Cadence
from trainbus_checkpointing.rehearsal import Rehearsal, Rehearsed
from trainbus_checkpointing.retention import Ranking
from training.plugin import Plan, PlannedRun, count


def plan_of(
    run: PlannedRun,
    name: str,
    cadence: Cadence,
    ranking: Ranking,
    files: tuple[Path, Path],
) -> Plan:
    """Return what is written and deleted, and what keeps it from being the best.

    Args:
        run: how long it is.
        name: what the plugin is called in it.
        cadence: when to save.
        ranking: which files are the best.
        files: name of the ranked ones, and of the last, metrics not filled in.
    """
    monitor = ranking.monitor
    conflicts = [
        *([] if monitor is None else run.metric_conflicts(monitor, f"{name}.monitor")),
        *run.length_conflicts(cadence.every_n_steps, "step", f"{name}.every_n_steps"),
        *run.length_conflicts(
            cadence.save_frequency, "epoch", f"{name}.save_frequency"
        ),
    ]
    if not run.is_counted:
        told = {"deleted": [f"{name}: {run.uncounted}"]}
        return Plan(told, dict.fromkeys(files, ""), conflicts)
    best = rehearse(run, cadence, ranking, improves=True)
    worst = rehearse(run, cadence, ranking, improves=False)
    most = max(best.most_kept, worst.most_kept)
    deleted = (
        f"{name}: {_between(best.num_deleted, worst.num_deleted)} of its own "
        f"checkpoints; at most {most:,} exist at a time"
    )
    ranked, last = files
    written = {
        ranked: f"{_between(best.num_ranked, worst.num_ranked)} written",
        last: f"{_between(best.num_last, worst.num_last)} written",
    }
    if monitor is not None and run.checks(monitor):
        conflicts += _unranked(name, ranking, best)
    return Plan({"deleted": [deleted]}, written, conflicts)


def rehearse(
    run: PlannedRun, cadence: Cadence, ranking: Ranking, improves: bool
) -> Rehearsed:
    """Return what a run writes if every value is the best so far, or only the first."""
    monitor = ranking.monitor
    fresh = set() if monitor is None else {at.step for at in run.checks(monitor)}
    rehearsal = Rehearsal(cadence, ranking, improves)
    for at in run.boundaries(run.every(cadence.every_n_steps)):
        boundary = Boundary(at.reason, at.epoch, at.step, at.is_stopping)
        rehearsal.pass_by(boundary, at.step in fresh)
    return rehearsal.result


def _unranked(name: str, ranking: Ranking, best: Rehearsed) -> list[str]:
    found = []
    if best.unmeasured:
        found.append(
            f"{name} saves {count(len(best.unmeasured), 'time')} between "
            f"evaluations, first after step {best.unmeasured[0][1]:,}: there is no "
            f"{ranking.monitor} to rank these by"
        )
    if not best.num_ranked and ranking.keep != 0:
        found.append(
            f"{name} never saves when {ranking.monitor} is fresh, so nothing is ever "
            "the best; let save_frequency meet the evaluations"
        )
    return found


def _between(one: int, other: int) -> str:
    low, high = sorted((one, other))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
