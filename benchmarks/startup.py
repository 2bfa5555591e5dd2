"""How long a person waits before anything happens.

Usage: python benchmarks/startup.py [--rounds 11] [--write] [--check]

Each command runs in a process of its own, interleaved with the others; the figures are
medians of wall time. ``import training`` is compared with ``import torch`` alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from environment import cpu_name, table, write

TRAINBUS = str(Path(sysconfig.get_path("scripts")) / "trainbus")
#: Says its own time: the difference of two imports of torch would be all noise.
OVER_TORCH = "Trainer, over import torch"
COMMANDS = {
    "python, nothing imported": [sys.executable, "-c", ""],
    "import torch": [sys.executable, "-c", "import torch"],
    "import training": [sys.executable, "-c", "import training"],
    OVER_TORCH: [
        sys.executable,
        "-c",
        "import gc, time, torch; gc.collect();"  # what is due to its objects is paid
        "began = time.perf_counter(); from training import Trainer;"
        "print(time.perf_counter() - began)",
    ],
    "trainbus --help": [TRAINBUS, "--help"],
    "trainbus plugins list": [TRAINBUS, "plugins", "list"],
}
#: Seconds: of a whole command, and of ``import training`` and ``Trainer`` over
#: ``import torch``.
COMMAND_LIMIT = 0.4
IMPORT_LIMIT, TRAINER_LIMIT = 0.05, 0.05


def seconds_of(command: list[str], byte_code: str) -> float:
    """Run ``command`` once from a folder without packages; return wall seconds.

    Args:
        command: with its arguments.
        byte_code: folder that Python keeps it in, whatever it is told elsewhere: else
            each process would compile all that is ours, as nobody's second one does.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    run = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent / "results",
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": byte_code},
    )
    seconds = time.perf_counter() - started
    return float(run.stdout) if command is COMMANDS[OVER_TORCH] else seconds


def measure(rounds: int) -> dict[str, float]:
    """Return the median seconds of each command over interleaved rounds."""
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as byte_code:
        for command in COMMANDS.values():
            seconds_of(command, byte_code)  # fills the page cache, writes byte code
        for _ in range(rounds):
            for name, command in COMMANDS.items():
                samples[name].append(seconds_of(command, byte_code))
    return {name: round(statistics.median(all_), 4) for name, all_ in samples.items()}


def failures(medians: dict[str, float]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    found = [
        f"{name}: {seconds:.3f} s, limit is {COMMAND_LIMIT} s"
        for name, seconds in medians.items()
        if name.startswith("trainbus") and seconds > COMMAND_LIMIT
    ]
    package = medians["import training"] - medians["import torch"]
    if package > IMPORT_LIMIT:
        found.append(f"import training: {package:.3f} s, limit {IMPORT_LIMIT} s")
    if medians[OVER_TORCH] > TRAINER_LIMIT:
        over = medians[OVER_TORCH]
        found.append(f"{OVER_TORCH}: {over:.3f} s, limit {TRAINER_LIMIT} s")
    return found


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    medians = measure(args.rounds)
    rows = [[name, f"{seconds * 1e3:.0f}"] for name, seconds in medians.items()]
    print(table(["median wall time", "ms"], rows))
    print("on:", cpu_name())
    if args.write:
        figures = {"rounds": args.rounds, "seconds": medians}
        print("written:", write("startup", figures))
    broken = failures(medians) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
