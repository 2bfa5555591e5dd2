"""What it costs to announce a step: six events, two listeners each.

Usage: python benchmarks/emission.py [--rounds 15] [--write] [--check]

The loop asks the bus for a slot and calls it, as ``training/loop/loop.py`` does. Beside
it: the same when nobody listens, when plugins are being profiled, and when they were
and no longer are, which must cost what never profiling costs; twelve plain method calls
that do the same nothing (no bus can be cheaper), and pluggy's own call. Rounds are
interleaved; the figure is the median over them, in microseconds a step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from environment import table, write
from overhead import prepare_process

from training.bus.bus import Bus
from training.bus.meter import Meter
from training.callbacks import Callback

#: Microseconds a step that the bus may add to the listeners' calls, for six events
#: with two listeners each.
LIMIT = 0.6
STEPS = 20_000


class Listener(Callback):
    """Hears six events and does nothing."""

    def on_batch_begin(self, batch: int) -> None:
        """Do nothing."""

    def on_batch_end(self, batch: int, logs: Any) -> None:
        """Do nothing."""

    def on_before_step(self, trainer: Any) -> None:
        """Do nothing."""

    def on_step_end(self, trainer: Any, logs: Any) -> None:
        """Do nothing."""

    def on_metrics(self, metrics: Any) -> None:
        """Do nothing."""

    def on_checkpoint(self, reason: str) -> None:
        """Do nothing."""


class Other(Listener):
    """The second of two."""


def announcing(bus: Bus) -> Callable[[], None]:
    """Return ``STEPS`` steps that announce and do nothing else."""
    trainer, logs = object(), {"loss": 0.0}

    def run() -> None:
        for index in range(STEPS):
            if bus.on_batch_begin is not None:
                bus.on_batch_begin(trainer, index, logs)
            if bus.on_batch_end is not None:
                bus.on_batch_end(trainer, index, logs)
            if bus.on_before_step is not None:
                bus.on_before_step(trainer)
            if bus.on_step_end is not None:
                bus.on_step_end(trainer, logs, True)
            if bus.on_metrics is not None:
                bus.on_metrics(trainer, logs)
            if bus.on_checkpoint is not None:
                bus.on_checkpoint(trainer, "due")

    return run


def calling(listeners: list[Listener]) -> Callable[[], None]:
    """Return ``STEPS`` steps that call the listeners' methods."""
    trainer, logs = object(), {"loss": 0.0}
    one, two = listeners

    def run() -> None:
        for index in range(STEPS):
            one.on_batch_begin(index)
            two.on_batch_begin(index)
            one.on_batch_end(index, logs)
            two.on_batch_end(index, logs)
            one.on_before_step(trainer)
            two.on_before_step(trainer)
            one.on_step_end(trainer, logs)
            two.on_step_end(trainer, logs)
            one.on_metrics(logs)
            two.on_metrics(logs)
            one.on_checkpoint("due")
            two.on_checkpoint("due")

    return run


def pluggy_calling(bus: Bus) -> Callable[[], None]:
    """Return ``STEPS`` steps that announce through pluggy's own call."""
    import pluggy

    from training import hookspecs

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    mark = hookspecs.hookimpl
    events = [name for name in vars(Listener) if name.startswith("on_")]
    for kind in (Listener, Other):
        plugin = type(kind.__name__, (), {n: mark(getattr(kind, n)) for n in events})
        manager.register(plugin())
    hook, trainer, logs = manager.hook, object(), {"loss": 0.0}

    def run() -> None:
        for index in range(STEPS):
            hook.on_batch_begin(trainer=trainer, batch=index, inputs=logs)
            hook.on_batch_end(trainer=trainer, batch=index, logs=logs)
            hook.on_before_step(trainer=trainer)
            hook.on_step_end(trainer=trainer, logs=logs, applied=True)
            hook.on_metrics(trainer=trainer, metrics=logs)
            hook.on_checkpoint(trainer=trainer, reason="due")

    return run


def empty() -> None:
    """Run the loop around nothing, which is taken off the others."""
    for _ in range(STEPS):
        pass


def measure(rounds: int) -> dict[str, float]:
    """Return median microseconds a step by way of announcing."""
    nobody, two, profiled, off_again = Bus(), Bus(), Bus(), Bus()
    listeners = [Listener(), Other()]
    for bus in (two, profiled, off_again):
        for kind in (Listener, Other):
            bus.register(kind())
    profiled.meter, off_again.meter = Meter(), Meter()
    off_again.meter = None
    ways: dict[str, Callable[[], None]] = {
        "empty loop": empty,
        "nobody listens": announcing(nobody),
        "trainbus, two listeners": announcing(two),
        "the same, profiled": announcing(profiled),
        "the same, profiled no more": announcing(off_again),
        "twelve method calls": calling(listeners),
        "pluggy, two listeners": pluggy_calling(two),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            samples[name].append((time.perf_counter() - started) / STEPS * 1e6)
    around = statistics.median(samples.pop("empty loop"))
    return {
        name: round(statistics.median(taken) - around, 3)
        for name, taken in samples.items()
    }


def main() -> int:
    """Measure and print; return 1 when --check finds the limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limit")
    args = parser.parse_args()
    prepare_process()
    figures = measure(args.rounds)
    added = figures["trainbus, two listeners"] - figures["twelve method calls"]
    rows = [[name, f"{us:.3f}"] for name, us in figures.items()]
    rows.append(["the bus over the method calls", f"{added:.3f}"])
    print(table(["six events a step", "us/step"], rows))
    if args.write:
        kept = {"rounds": args.rounds, "limit": LIMIT, "us_per_step": figures}
        print("written:", write("emission", kept))
    if args.check and added > LIMIT:
        print(f"failed: {added:.3f} us a step, limit is {LIMIT} us", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
