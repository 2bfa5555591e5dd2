"""What checkpointing says of a run that is only planned: no file is touched.

The rules are those of a run; only the values of the metric are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from trainbus_checkpointing import cadence as when
from trainbus_checkpointing.cadence import Boundary, Cadence
from trainbus_checkpointing.retention import KEEP_ALL, Entry, Ranking
from training.plugin import Plan, PlannedRun, count, gain


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


class Rehearsal:
    """Goes through the boundaries of a run with an assumed course of the metric.

    Args:
        cadence: when to save.
        ranking: which files are the best.
        improves: whether each value is better than all before; else the first is best.
    """

    def __init__(self, cadence: Cadence, ranking: Ranking, improves: bool) -> None:
        self._cadence, self._ranking = cadence, ranking
        better = gain(1.0, 0.0, ranking.mode)  # one up, or one down
        self._direction = better if improves else -better
        self._value = 0.0
        self._ranked: list[Entry] = []
        self._others: list[Entry] = []  # written only to go on from
        self._ranked_at = 0  # step of the newest ranked one
        self._saved_at: tuple[int, int] | None = None
        self._valued_at = 0  # step of the newest value
        self.result = Rehearsed()

    def pass_by(self, at: Boundary, is_fresh: bool) -> None:
        """Do what a run would do here; ``is_fresh``: the metric has a fresh value."""
        if is_fresh and at.step > self._valued_at:
            self._value += self._direction
            self._valued_at = at.step
        is_candidate = (
            is_fresh
            and self._ranked_at != at.step
            and self._ranking.enters(self._value, self._ranked)
        )
        if at.reason == "step":
            if self._cadence.is_step_due(at.step):
                at = replace(at, reason=when.REASON_STEPS)
            elif is_candidate:
                at = replace(at, reason=when.REASON_BEST)
            else:
                return
        is_ranked = self._cadence.wants_ranked(at, is_candidate)
        is_saved = self._saved_at == (at.epoch, at.step)
        if not is_saved and (is_ranked or self._cadence.wants_last(at)):
            self._save(at, is_ranked, is_fresh)

    @property
    def _has_room(self) -> bool:
        """Whether no ranked one has to go; then there is nothing to compare."""
        keep = self._ranking.keep
        return keep == KEEP_ALL or len(self._ranked) <= keep

    def _save(self, at: Boundary, is_ranked: bool, is_fresh: bool) -> None:
        result, monitor = self.result, self._ranking.monitor
        self._saved_at = at.epoch, at.step
        name = f"{result.num_ranked + result.num_last}"
        entry = Entry(name, at.step, at.epoch, at.step, is_ranked, at.reason)
        if is_fresh and monitor is not None:
            entry.metrics[monitor] = self._value
        if is_ranked:
            result.num_ranked += 1
            if monitor is not None and not is_fresh:
                result.unmeasured.append((at.epoch, at.step))
        else:
            result.num_last += 1
        if is_ranked:
            self._ranked_at = at.step
        (self._ranked if is_ranked else self._others).append(entry)
        kept = len(self._ranked) + len(self._others)
        result.most_kept = max(result.most_kept, kept)
        self._others = [other for other in self._others if other is entry]
        if not self._has_room:
            best = self._ranking.best(self._ranked)
            protected = {entry.file} | ({best.file} if best else set())
            gone = {e.file for e in self._ranking.evicted(self._ranked, protected)}
            self._ranked = [each for each in self._ranked if each.file not in gone]
        result.num_deleted += kept - len(self._ranked) - len(self._others)
