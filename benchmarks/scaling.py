"""Does a step stay as cheap with many plugins, and in a long run?

Usage: python benchmarks/scaling.py [--rounds 25] [--write] [--check]

The workload of ``overhead.py``, with a bare loop in every round as the measure.

- **plugins**: 1, 10 and 40 plugins of a common kind: they hear a run's and an epoch's
  events. Beside it 40 that hear every step and do nothing with it.
- **steps**: runs of 1,000, 10,000 and 100,000 steps in one epoch, without plugins.

``x bare`` is the median over rounds of (time a step / time a step of the bare loop in
that round), in CPU time, which what else a machine does disturbs less. It is flat if
the lowest and the highest median of a series are no further apart than ``NOISE``. A
long run has fewer rounds than a short one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environment import table, write
from overhead import prepare_process, run_once, same
from torch import nn
from workload import Batches, Contestant, Workload, bare

from training import Trainer
from training.callbacks import Callback

#: Difference of two medians of ratios that one machine shows for the same work.
NOISE = 0.05
STEPS = 500
NUM_PLUGINS = (1, 10, 40)
NUM_STEPS = (1_000, 10_000, 100_000)


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


class Again:
    """Batches, repeated: a long epoch in little memory."""

    def __init__(self, batches: Batches, times: int) -> None:
        self.batches, self.times = batches, times

    def __len__(self) -> int:
        return len(self.batches) * self.times

    def __iter__(self) -> Any:
        for _ in range(self.times):
            yield from self.batches


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


def long_work(steps: int) -> Workload:
    """Return a workload of one epoch with ``steps`` updates."""
    work = Workload.create(1, STEPS)
    train: Any = Again(work.train, steps // STEPS)
    return Workload(1, train, work.validation, work.template)


def series(
    cases: dict[str, tuple[Contestant, Workload]], rounds: dict[str, int]
) -> dict[str, dict[str, float]]:
    """Return the figures of each case, whose bare loop runs next to it."""
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for index in range(max(rounds.values())):
        for name in order:
            if index >= rounds[name]:
                continue
            contestant, work = cases[name]
            pair = [bare, contestant] if index % 2 else [contestant, bare]
            found = {each: run_once(each, work) for each in pair}
            assert same(found[bare][2], found[contestant][2]), f"{name}: weights differ"
            ratios[name].append(found[contestant][1] / found[bare][1])
            seconds[name].append(found[contestant][1] / work.num_steps)
        order = order[1:] + order[:1]
        print(f"round {index + 1}", file=sys.stderr, flush=True)
    return {
        name: {
            "ratio": round(statistics.median(ratios[name]), 4),
            "ratio_lowest": round(min(ratios[name]), 4),
            "ratio_highest": round(max(ratios[name]), 4),
            "us_per_step": round(statistics.median(seconds[name]) * 1e6, 1),
        }
        for name in cases
    }


def spread(figures: dict[str, dict[str, float]]) -> float:
    """Return how far apart the medians of a series are."""
    found = [row["ratio"] for row in figures.values()]
    return round(max(found) - min(found), 4)


def show(title: str, figures: dict[str, dict[str, float]]) -> str:
    """Return the table of a series."""
    rows = [
        [
            name,
            f"{row['ratio']:.3f}",
            f"{row['ratio_lowest']:.3f}-{row['ratio_highest']:.3f}",
            f"{row['us_per_step']:.0f}",
        ]
        for name, row in figures.items()
    ]
    return table([title, "x bare", "range", "us/step"], rows)


def main() -> int:
    """Measure and print; return 1 when --check finds a series that is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--long-rounds", type=int, default=3, help="of 100,000 steps")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail where it rises")
    args = parser.parse_args()
    prepare_process()
    work = Workload.create(1, STEPS)
    run_once(bare, work)
    plugins = {f"{n} plugins": (trainer_with(Quiet, n), work) for n in NUM_PLUGINS}
    plugins["40, every step"] = (trainer_with(Eager, 40), work)
    plain = trainer_with(Quiet, 0)
    steps = {f"{n:,} steps": (plain, long_work(n)) for n in NUM_STEPS}
    often = dict.fromkeys([*plugins, *steps], args.rounds)
    often[f"{NUM_STEPS[1]:,} steps"] = min(args.rounds, 2 * args.long_rounds)
    often[f"{NUM_STEPS[2]:,} steps"] = args.long_rounds
    found = {
        "plugins": series(plugins, {name: often[name] for name in plugins}),
        "steps": series(steps, {name: often[name] for name in steps}),
    }
    flat = {"plugins": {n: f for n, f in found["plugins"].items() if "," not in n}}
    flat["steps"] = found["steps"]
    apart = {name: spread(figures) for name, figures in flat.items()}
    for name, figures in found.items():
        print("\n" + show(name, figures))
        print(f"medians apart by {apart[name]}, noise {NOISE}")
    if args.write:
        print("written:", write("scaling", {"rounds": often, **found, "spread": apart}))
    broken = [name for name, value in apart.items() if value > NOISE]
    if args.check and broken:
        print("failed: not flat:", ", ".join(broken), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
