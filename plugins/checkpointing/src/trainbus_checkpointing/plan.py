"""What checkpointing says of a run that is only planned: no file is touched.

The rules are those of a run; only the values of the metric are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainbus_checkpointing.cadence import REASON_STEPS, Boundary, Cadence
from trainbus_checkpointing.retention import KEEP_ALL, Entry, Ranking
from training.plugin import Plan, PlannedRun, count, gain


@dataclass
class Rehearsed:
    """The files of a rehearsed run.

    Attributes:
        num_ranked: written because they were due as one of the best.
        num_last: written only so that training can go on from them.
        num_deleted: deleted before the run was over.
        most_kept: most files at any one time.
        unmeasured: (epoch, step) of ranked saves without a fresh value to rank by.
    """

    num_ranked: int = 0
    num_last: int = 0
    num_deleted: int = 0
    most_kept: int = 0
    unmeasured: list[tuple[int, int]] = field(default_factory=list)


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
    monitor, result = ranking.monitor, Rehearsed()
    fresh = set() if monitor is None else {at.step for at in run.checks(monitor)}
    better = gain(1.0, 0.0, ranking.mode)  # one up, or one down
    value, ranked, num_last = 0.0, list[Entry](), 0
    for at in run.boundaries(run.every(cadence.every_n_steps)):
        is_fresh = at.step in fresh
        if is_fresh:
            value += better if improves else -better
        is_candidate = is_fresh and ranking.enters(value, ranked)
        # Inside an epoch nobody but the cadence asks for a save.
        reason = REASON_STEPS if at.reason == "step" else at.reason
        boundary = Boundary(reason, at.epoch, at.step, at.is_stopping)
        is_ranked = cadence.wants_ranked(boundary, is_candidate)
        if not is_ranked and not cadence.wants_last(boundary):
            continue
        entry = Entry(f"{at.step}", at.step, at.epoch, at.step, is_ranked, reason)
        if is_fresh and monitor is not None:
            entry.metrics[monitor] = value
        elif is_ranked and monitor is not None:
            result.unmeasured.append((at.epoch, at.step))
        kept = len(ranked) + num_last + 1
        if is_ranked:
            ranked.append(entry)  # a copy each time would take for ever
        ranked = _left(ranked, entry, ranking)
        num_last = int(not is_ranked)  # the one before goes, whichever this is
        result.num_ranked += is_ranked
        result.num_last += num_last
        result.most_kept = max(result.most_kept, kept)
        result.num_deleted += kept - len(ranked) - num_last
    return result


def _left(ranked: list[Entry], newest: Entry, ranking: Ranking) -> list[Entry]:
    """Return the ranked ones that stay when one was written."""
    # Asked first: where none has to go, there is nothing to compare.
    if ranking.keep == KEEP_ALL or len(ranked) <= ranking.keep:
        return ranked
    best = ranking.best(ranked)
    protected = {entry.file for entry in (newest, best) if entry}
    gone = {entry.file for entry in ranking.evicted(ranked, protected)}
    return [entry for entry in ranked if entry.file not in gone]


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
