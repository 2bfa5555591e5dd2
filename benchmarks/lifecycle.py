"""What a run costs beside its steps: to set up and tear down, and in memory.

Usage: python benchmarks/lifecycle.py [--rounds 25] [--write] [--check]

**Time**: building a trainer and training two steps, over a bare loop that builds the
same model and optimizer and trains the same two steps; interleaved, medians, in
milliseconds. "Six plugins" are those of ``overhead.py``'s full contest, with a durable
checkpoint among their files, and the bare loop is the one that does it all by hand.

**Memory**: the peak resident size of a process that trains a model of 134 MB with
AdamW, over that of one that does so in a bare loop; both have imported the same
packages, and each round starts fresh processes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contestants import trainbus_full, trainbus_plain
from environment import table, write
from overhead import prepare_process, run_once, same
from torch import nn
from workload import Workload, bare, bare_full

#: Milliseconds that a run without plugins may take beside its steps.
LIMIT_MS = 10.0
#: Peak memory over that of the bare loop.
LIMIT_MEMORY = 1.02
STEPS = 2
PAIRS = {
    "no plugins": (trainbus_plain, bare),
    "six plugins": (trainbus_full, bare_full),
}
#: Square layers of 4 MB, so that AdamW holds 512 MB and libraries are the small part.
LAYERS, WIDTH = 32, 1024


def milliseconds(contestant: Any, work: Workload) -> tuple[float, Any]:
    """Return wall time of building and training, and the final weights."""
    kept: dict[str, float] = {}

    def building(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
        started = time.perf_counter()
        model, train = contestant(work, folder)
        kept["building"] = time.perf_counter() - started
        return model, train

    training, _, weights = run_once(building, work)
    return (kept["building"] + training) * 1e3, weights


def measure_time(rounds: int) -> dict[str, dict[str, float]]:
    """Return for each pair the median and range of the difference, in ms."""
    work = Workload.create(1, STEPS)
    differences: dict[str, list[float]] = {name: [] for name in PAIRS}
    for index in range(rounds + 2):  # two for first-time costs, not counted
        for name, (ours, theirs) in PAIRS.items():
            one, other = (ours, theirs) if index % 2 else (theirs, ours)
            first, first_weights = milliseconds(one, work)
            second, second_weights = milliseconds(other, work)
            assert same(first_weights, second_weights), f"{name}: weights differ"
            if index >= 2:
                sign = 1 if one is ours else -1
                differences[name].append(sign * (first - second))
    return {
        name: {
            "ms": round(statistics.median(found), 2),
            "ms_lowest": round(min(found), 2),
            "ms_highest": round(max(found), 2),
        }
        for name, found in differences.items()
    }


def train_large(who: str) -> None:
    """Train the large model eight steps, by hand or by a trainer; print the peak."""
    from training import Trainer

    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = [(torch.ones(8, WIDTH) * i, torch.zeros(8, WIDTH)) for i in range(8)]
    loss_fn = nn.MSELoss()
    if who == "bare loop":
        for inputs, targets in batches:
            loss_fn(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    else:
        Trainer(
            model, batches, optimizer=optimizer, loss_fn=loss_fn, device="cpu"
        ).train()
    checksum = sum(float(p.double().sum()) for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak, repr(checksum))


def measure_memory(rounds: int) -> dict[str, Any]:
    """Return median peaks in MB and the median of the ratios of the rounds."""
    peaks: dict[str, list[int]] = {"bare loop": [], "trainbus": []}
    checksums = set()
    for _ in range(rounds):
        for who, found in peaks.items():
            command = [sys.executable, __file__, "--train-large", who]
            text = subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout
            peak, checksum = text.split()
            found.append(int(peak))
            checksums.add(checksum)
    pairs = zip(peaks["trainbus"], peaks["bare loop"], strict=True)
    return {
        "mb": {who: round(statistics.median(p) / 1024, 1) for who, p in peaks.items()},
        "ratio": round(statistics.median(ours / bare for ours, bare in pairs), 4),
        "weights_equal_bare": len(checksums) == 1,
    }


def failures(times: dict[str, Any], memory: dict[str, Any]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    found = []
    if times["no plugins"]["ms"] > LIMIT_MS:
        found.append(f"a run takes {times['no plugins']['ms']} ms, limit {LIMIT_MS} ms")
    if memory["ratio"] > LIMIT_MEMORY:
        found.append(f"peak memory is {memory['ratio']} x bare, limit {LIMIT_MEMORY}")
    if not memory["weights_equal_bare"]:
        found.append("the weights of the large model differ from the bare loop's")
    return found


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--memory-rounds", type=int, default=5)
    parser.add_argument("--train-large", metavar="WHO", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    prepare_process()
    if args.train_large:
        train_large(args.train_large)
        return 0
    times, memory = measure_time(args.rounds), measure_memory(args.memory_rounds)
    rows = [
        [name, *(f"{row[key]:+.2f}" for key in ("ms", "ms_lowest", "ms_highest"))]
        for name, row in times.items()
    ]
    print(
        table(["a run of two steps, over a bare loop", "ms", "lowest", "highest"], rows)
    )
    rows = [[who, f"{mb:.1f}"] for who, mb in memory["mb"].items()]
    print("\n" + table(["peak memory", "MB"], rows))
    print(f"ratio {memory['ratio']}, same weights: {memory['weights_equal_bare']}")
    if args.write:
        kept = {"rounds": args.rounds, "time": times, "memory": memory}
        print("written:", write("lifecycle", kept))
    broken = failures(times, memory) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
