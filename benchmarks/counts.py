"""What a step costs beside the work itself, counted: kernels and calls of Python.

Usage: python benchmarks/counts.py [--write]

The workload of ``overhead.py``. Kernels are counted on the meta device, with a fused
AdamW, as they would be launched on a GPU; a listener to ``on_step_end`` makes the loop
prepare its logs. Calls are counted on a CPU, of all trainers that are installed. No
clock is read, so the figures are the same on any machine; they depend on the versions
of Python and of the libraries. ``tests/loop/test_counts_of_a_step.py`` has the limits.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import installed
from counting import (
    Settings,
    bare_steps,
    calls_of_a_contestant,
    calls_of_a_step,
    kernels_of_a_step,
    our_steps,
)
from environment import table, write
from overhead import Terminal
from workload import Workload

from training import Callback

STEPS = {
    "fp32": Settings(),
    "fp32, clipped": Settings(max_norm=1.0),
    "fp32, 4 batches": Settings(accumulation=4),
    "fp32, 4 batches, clipped": Settings(accumulation=4, max_norm=1.0),
    "fp16": Settings(precision="fp16"),
    "fp16, clipped": Settings(max_norm=1.0, precision="fp16"),
}

#: What is counted -> (of the bare loop, of trainbus).
Figures = dict[str, tuple[float, float]]


class Listens(Callback):
    """Hears every step and does nothing with it."""

    def on_step_end(self, logs: Any) -> None:
        """Do nothing."""


def beside_bare(
    count: Callable[..., Counter[str]], folder: Path, names: list[str], **options: Any
) -> Figures:
    """Return what ``count`` finds for some of ``STEPS``."""
    work, found = Workload.create(1, 1), {}
    for name in names:
        bare = count(bare_steps, work, STEPS[name])
        ours = count(our_steps, work, STEPS[name], save_dir=folder, **options)
        found[name] = bare.total(), ours.total()
    return found


def of_contestants(contest: str, folder: Path) -> dict[str, float]:
    """Return the calls of Python of every trainer that is installed."""
    found, screen = {}, Terminal()
    for name, contestant in installed(contest).items():
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
            found[name] = calls_of_a_contestant(contestant, folder).total()
    return found


def show(title: str, figures: Figures) -> str:
    """Return the table of what a step of a ``Trainer`` has more."""
    rows = [
        [name, f"{bare:g}", f"{ours:g}", f"{ours - bare:+g}", f"{ours / bare:.3f}"]
        for name, (bare, ours) in figures.items()
    ]
    return table([title, "bare", "trainbus", "more", "x bare"], rows)


def show_contest(contest: str, figures: dict[str, float]) -> str:
    """Return the table of all trainers, in order."""
    bare = figures["bare loop"]
    rows = [
        [name, f"{calls:.1f}", f"{calls - bare:+.1f}", f"{calls / bare:.3f}"]
        for name, calls in sorted(figures.items(), key=lambda item: item[1])
    ]
    return table([f"Python calls, {contest}", "a step", "more", "x bare"], rows)


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    on_a_cpu = [name for name in STEPS if name.startswith("fp32")]
    with tempfile.TemporaryDirectory(prefix="trainbus-counts-") as folder:
        place = Path(folder)
        heard = [Listens()]
        kernels = beside_bare(kernels_of_a_step, place, [*STEPS], callbacks=heard)
        calls = beside_bare(calls_of_a_step, place, on_a_cpu)
        contests = {each: of_contestants(each, place) for each in ("plain", "full")}
    print(show("kernels a step", kernels), "\n")
    print(show("Python calls a step", calls))
    for contest, figures in contests.items():
        print("\n" + show_contest(contest, figures))
    if args.write:
        found = {"kernels": kernels, "calls": calls, "contestants": contests}
        print("written:", write("counts", found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
