"""What does a step cost, with many plugins, and late in a long run?

Usage: python benchmarks/scaling.py [--rounds 12] [--write] [--check]

The workload of ``overhead.py``, in turns of ten steps with a bare loop (``paired.py``).

- **plugins**: none, 1, 10 and 40 plugins of a common kind: they hear a run's and an
  epoch's events. Beside it 40 that hear every step and do nothing with it. And the bare
  loop again, in a trainer's place: what it differs from 1 is the error of the method.
- **steps**: one run of 100,000 steps without plugins, looked at until step 1,000, from
  there until step 10,000, and from there to its end.

``x bare`` is the median over the pairs, with the 95 % interval of that median. A series
is flat if its lowest and its highest median are no further apart than ``NOISE``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from counting import calls_of_a_contestant
from environment import cpu_name, table, write
from overhead import prepare_process, run_once
from paired import BLOCK, ratios, summary
from torch import nn
from workload import Contestant, Workload, bare

from training import Trainer
from training.callbacks import Callback

#: What a ``Trainer`` without plugins may cost, times a bare loop.
LIMIT = 1.03
#: Difference of two medians that is taken for none.
NOISE = 0.02
STEPS = 1_000
NUM_PLUGINS = (1, 10, 40)
#: Where a long run is cut, in steps.
CUTS = (0, 1_000, 10_000, 100_000)

Figures = dict[str, dict[str, float]]


class Quiet(Callback):
    """Hears what most plugins hear: the events of a run and of its epochs."""

    def on_train_begin(self) -> None:
        """Count from nothing."""
        self.heard = 0

    def on_epoch_begin(self) -> None:
        """Count."""
        self.heard += 1

    def on_epoch_end(self) -> None:
        """Count."""
        self.heard += 1


class Eager(Quiet):
    """Hears every step, too."""

    def on_step_end(self) -> None:
        """Do nothing."""


def trainer_with(kind: type[Callback], count: int) -> Contestant:
    """Return a contestant with ``count`` plugins of one kind."""

    def contestant(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
        kinds = [type(f"{kind.__name__}{i}", (kind,), {}) for i in range(count)]
        model = work.new_model()
        trainer = Trainer(
            model,
            work.train,
            optimizer=work.new_optimizer(model),
            loss_fn=work.loss_fn,
            num_epochs=work.num_epochs,
            device="cpu",
            callbacks=[kind() for kind in kinds],
            save_dir=folder,
        )
        return model, trainer.train

    return contestant


def by_plugins(rounds: int) -> Figures:
    """Return the figures of runs with 0 to 40 plugins, in turns."""
    work = Workload.create(1, STEPS)
    cases = {"bare again": bare, "no plugin": trainer_with(Quiet, 0)}
    cases |= {f"{n} plugins": trainer_with(Quiet, n) for n in NUM_PLUGINS}
    cases["40, every step"] = trainer_with(Eager, 40)
    found: dict[str, list[float]] = {name: [] for name in cases}
    for index in range(rounds):
        for name, contestant in cases.items():
            found[name] += ratios(contestant, work, run_once)
        print(f"round {index + 1} of {rounds}", file=sys.stderr, flush=True)
    return {name: summary(values) for name, values in found.items()}


def by_steps(cuts: tuple[int, ...]) -> Figures:
    """Return the figures of the parts of one long run."""
    work = Workload.create(1, STEPS)
    found = ratios(trainer_with(Quiet, 0), work, run_once, times=cuts[-1] // STEPS)
    return {
        f"{start:,} to {end:,}": summary(found[start // BLOCK : end // BLOCK])
        for start, end in itertools.pairwise(cuts)
    }


def calls() -> str:
    """Say what a step of the trainer has more, in calls, which no machine changes."""
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        ours, by_hand = (
            calls_of_a_contestant(contestant, Path(folder)).total()
            for contestant in (trainer_with(Quiet, 0), bare)
        )
    return f"a step calls {ours:g} functions of Python, a bare one {by_hand:g}"


def spread(figures: Figures) -> float:
    """Return how far apart the medians of a series are."""
    found = [row["ratio"] for row in figures.values()]
    return round(max(found) - min(found), 4)


def show(title: str, figures: Figures) -> str:
    """Return the table of a series."""
    rows = [
        [
            name,
            f"{row['ratio']:.3f}",
            f"{row['interval_low']:.3f}-{row['interval_high']:.3f}",
            f"{row['blocks']:,}",
        ]
        for name, row in figures.items()
    ]
    return table([title, "x bare", "95 % interval", "pairs"], rows)


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=CUTS[-1], help="of the long run")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    prepare_process()
    run_once(bare, Workload.create(1, STEPS))
    plugins = by_plugins(args.rounds)
    steps = by_steps((*(cut for cut in CUTS if cut < args.steps), args.steps))
    quiet = {name: plugins[name] for name in plugins if name.endswith("plugins")}
    apart = {"plugins": spread(quiet), "steps": spread(steps)}
    print("\n" + show("plugins", plugins) + "\n\n" + show("steps", steps))
    print(f"medians apart: {apart}, taken for noise: {NOISE}")
    print(f"on one core of: {cpu_name()}; {calls()}")
    if args.write:
        found = {"plugins": plugins, "steps": steps, "spread": apart}
        print("written:", write("scaling", {"rounds": args.rounds, **found}))
    broken = [f"{n} is not flat" for n, value in apart.items() if value > NOISE]
    if plugins["no plugin"]["ratio"] > LIMIT:
        broken.append(f"a Trainer costs more than {LIMIT} x bare")
    for sentence in broken if args.check else ():
        print("failed:", sentence, file=sys.stderr)
    return 1 if args.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
