"""What a trainer adds to a bare PyTorch loop that does the same work.

Usage: python benchmarks/overhead.py [--rounds 25] [--write] [--check]

All contestants run in this process on one core, in rounds: each round runs each of them
once, in another order, with fresh weights. A ratio compares a contestant with the bare
loop of the same round, and the median of these ratios is the figure; so a machine
that is slower for a while slows both. Final weights are compared bit for bit. Each also
runs a single step in each round: what a run does once (measuring what a batch weighs,
an evaluation, a save), which the ratio holds, is told apart so.

A ratio means nothing without its step: there is one of 0.4 to 1.2 ms, by the machine,
and a short one of less than half, and each table says how long its bare step took.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from contestants import installed
from environment import cpu_name, leave_optional_off, table, write
from workload import Contestant, Workload, guarded

CONTESTS = ("plain", "full")
MEASURE, GUARDED = "bare loop", "guarded loop"
#: What trainbus may cost: its time over that of the bare loop, by the step's length.
LIMITS = {"": {"plain": 1.02, "full": 1.10}, "short": {"plain": 1.05, "full": 1.08}}
#: And over a bare loop that looks by hand for what is not finite, as trainbus does.
GUARDED_LIMIT = 0.95
#: Steps of a run from which on they are told apart from what it does once.
LEAST_STEPS = 100


class Terminal(io.TextIOBase):
    """A screen that nobody looks at: bars believe in it and draw."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return True, or some bars would not draw."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Forget ``text``."""
        return len(text)


@dataclass
class Record:
    """What one contestant did: a figure for each round.

    Attributes:
        wall_seconds: of a run.
        cpu_seconds: of a run.
        once_seconds: of a run of a single step.
        is_equal: whether the weights were those of the bare loop.
    """

    wall_seconds: list[float] = field(default_factory=list)
    once_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    is_equal: bool = True


def run_once(
    contestant: Contestant, work: Workload
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Train once in a fresh folder; return wall and CPU seconds and the weights."""
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        screen = Terminal()
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
            model, train = contestant(work, Path(folder))
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            train()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall, cpu, model.state_dict()


def run_contest(contest: str, work: Workload, rounds: int) -> dict[str, Record]:
    """Run all contestants ``rounds`` times, interleaved."""
    contestants = installed(contest)
    if work.is_short and contest == "plain":
        contestants[GUARDED] = guarded
    few, one = (Workload.create(1, steps, work.is_short) for steps in (20, 1))
    for contestant in contestants.values():
        run_once(contestant, few)  # imports and first-time costs, not counted
    records = {name: Record() for name in contestants}
    order = list(contestants)
    for index in range(rounds):
        weights = {}
        for name in order:
            wall, cpu, weights[name] = run_once(contestants[name], work)
            records[name].wall_seconds.append(wall)
            records[name].cpu_seconds.append(cpu)
            records[name].once_seconds.append(run_once(contestants[name], one)[0])
        for name in order:
            records[name].is_equal &= same(weights[name], weights[MEASURE])
        order = order[1:] + order[:1]
        print(f"{contest}: round {index + 1} of {rounds}", file=sys.stderr, flush=True)
    return records


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )


def summarise(records: dict[str, Record], num_steps: int) -> dict[str, dict[str, Any]]:
    """Return the figures of a contest by contestant."""
    base = records[MEASURE]
    summary = {}
    for name, record in records.items():
        pairs = zip(record.wall_seconds, base.wall_seconds, strict=True)
        ratios = [wall / bare for wall, bare in pairs]
        pairs = zip(record.cpu_seconds, base.cpu_seconds, strict=True)
        median = statistics.median(record.wall_seconds)
        steps = zip(_without_once(record), _without_once(base), strict=True)
        step_ratio = statistics.median(own / bare for own, bare in steps)
        summary[name] = {
            "ratio": round(statistics.median(ratios), 4),
            "ratio_lowest": round(min(ratios), 4),
            "ratio_highest": round(max(ratios), 4),
            "cpu_ratio": round(statistics.median(cpu / bare for cpu, bare in pairs), 4),
            "us_per_step": round(median / num_steps * 1e6, 1),
            # A run of hardly a step more tells nothing of a step.
            "step_ratio": round(step_ratio, 4) if num_steps >= LEAST_STEPS else None,
            "once_ms": round(statistics.median(record.once_seconds) * 1e3, 2),
            "weights_equal_bare": record.is_equal,
        }
    return summary


def _without_once(record: Record) -> list[float]:
    """Return seconds of the steps of each run but one, without what is done once."""
    pairs = zip(record.wall_seconds, record.once_seconds, strict=True)
    return [wall - once for wall, once in pairs]


def show(contest: str, summary: dict[str, dict[str, Any]]) -> str:
    """Return the table of a contest, in order of the ratio."""
    bare = summary[MEASURE]["us_per_step"]
    title = f"{contest}, a step of {bare / 1e3:.2f} ms"
    rows = [
        [
            name,
            f"{row['ratio']:.3f}",
            f"{row['ratio_lowest']:.3f}-{row['ratio_highest']:.3f}",
            f"{row['cpu_ratio']:.3f}",
            f"{row['us_per_step']:.0f}",
            f"{row['us_per_step'] - bare:+.0f}",
            f"{row['step_ratio']:.3f}" if row["step_ratio"] else "-",
            f"{row['once_ms']:.1f}",
            "yes" if row["weights_equal_bare"] else "NO",
        ]
        for name, row in sorted(summary.items(), key=lambda item: item[1]["ratio"])
    ]
    headings = [title, "x bare", "range", "x CPU", "us/step", "added"]
    return table([*headings, "steps alone", "once, ms", "same weights"], rows)


def failures(
    summaries: dict[str, dict[str, dict[str, Any]]], length: str = ""
) -> list[str]:
    """Return a sentence for each thing that trainbus promised and did not keep.

    Args:
        summaries: figures by contest.
        length: of the step, as ``LIMITS`` has it.
    """
    found = []
    for contest, limit in LIMITS[length].items():
        row = summaries[contest].get("trainbus")
        if row is None:
            found.append(
                "trainbus is not installed; run: pip install -r requirements.txt"
            )
        elif row["ratio"] > limit:
            name = f"{length} {contest}".strip()
            found.append(f"{name}: ratio is {row['ratio']}, limit is {limit}")
        elif not row["weights_equal_bare"]:
            found.append(f"{contest}: weights differ from the bare loop's")
    plain = summaries["plain"]
    if GUARDED in plain and "trainbus" in plain:
        ratio = round(plain["trainbus"]["ratio"] / plain[GUARDED]["ratio"], 4)
        if ratio > GUARDED_LIMIT:
            found.append(f"over the {GUARDED}: {ratio}, limit is {GUARDED_LIMIT}")
    return found


def prepare_process() -> None:
    """Use one core and one thread, and silence what peers say about it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    leave_optional_off()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def main() -> int:
    """Run both contests; return 1 when --check finds a promise broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=25, help="at least 7 for a figure"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000, help="updates in an epoch")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    prepare_process()
    print("on one core of:", cpu_name())
    found: dict[str, Any] = {}
    for length in LIMITS:
        work = Workload.create(args.epochs, args.steps, is_short=bool(length))
        summaries = found.setdefault(length, {})
        for contest in CONTESTS:
            records = run_contest(contest, work, args.rounds)
            summaries[contest] = summarise(records, work.num_steps)
            print("\n" + show(contest, summaries[contest]) + "\n", flush=True)
    if args.write:
        settings = {"rounds": args.rounds, "epochs": args.epochs, "steps": args.steps}
        figures = {"settings": settings, **found[""], "short": found["short"]}
        print("written:", write("overhead", figures))
    broken = [each for n in found for each in failures(found[n], n)]
    broken = broken if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
