"""What the worked example learns, and how long it takes.

Usage: python benchmarks/vqa.py demo [--write] [--check]
       python benchmarks/vqa.py easy_vqa --root datasets/easy_vqa
       python benchmarks/vqa.py easy_vqa_short --root datasets/easy_vqa

Runs ``trainbus run config/NAME.yaml`` in a fresh save folder and reads the summary that
the run leaves there. Seconds are those of training with its evaluations; CPU seconds
are those of the process in that time, on all cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from environment import table, write

from training.recipes.kinds import floor_of

ROOT = Path(__file__).resolve().parents[1]
TRAINBUS = str(Path(sysconfig.get_path("scripts")) / "trainbus")
FLOORS = ("most_frequent", "question_only")
#: Configuration -> figure -> (at least or at most, value).
LIMITS = {
    "demo": {"exact_match": (">=", 0.95), "seconds": ("<=", 120)},
    "easy_vqa": {
        "accuracy": (">=", 0.97),
        "accuracy/other": (">=", 0.95),
        "cpu_seconds": ("<=", 1200),
    },
    "easy_vqa_short": {
        "accuracy": (">=", 0.80),
        "accuracy/other": (">=", 0.60),
        "cpu_seconds": ("<=", 200),
    },
}


def run(name: str, settings: list[str]) -> dict[str, Any]:
    """Train once in a fresh folder; return what its ``summary.json`` holds."""
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        save_dir = Path(folder) / "run"
        command = [TRAINBUS, "run", f"config/{name}.yaml"]
        for setting in [*settings, f"training.save_dir={save_dir}"]:
            command += ["--set", setting]
        subprocess.run(command, cwd=ROOT, check=True)
        return json.loads((save_dir / "summary.json").read_text())


def figures_of(summary: dict[str, Any]) -> dict[str, float]:
    """Return the last row's scores and the cost of the run."""
    scores = {
        name: value
        for name, value in summary["final"].items()
        if name.partition("/")[0] in ("accuracy", "exact_match", "val_loss")
    }
    counts = {name: summary[name] for name in ("epochs", "updates")}
    return scores | counts | {k: summary[k] for k in ("seconds", "cpu_seconds")}


def show(name: str, figures: dict[str, float], floors: dict[str, Any]) -> str:
    """Return the table: figures down, the floors beside those that have one."""
    rows = []
    for figure, value in figures.items():
        found = [floor_of(figure, floors.get(floor, {})) for floor in FLOORS]
        beside = ["" if share is None else f"{share:.3f}" for share in found]
        rows.append([figure, f"{value:.3f}", *beside])
    headings = [name, "final", *(floor.replace("_", " ") for floor in FLOORS)]
    return table(headings, rows)


def failures(name: str, figures: dict[str, float]) -> list[str]:
    """Return a sentence for each limit that is not kept."""
    found = []
    for figure, (relation, limit) in LIMITS[name].items():
        value = figures.get(figure)
        if value is None:
            found.append(f"{figure} was not measured; there are: {', '.join(figures)}")
        elif (value < limit) if relation == ">=" else (value > limit):
            found.append(f"{figure} is {value:.3f}, promised {relation} {limit}")
    return found


def main() -> int:
    """Run one configuration; return 1 when --check finds a promise broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=list(LIMITS))
    parser.add_argument("--root", type=Path, help="sets data.root, for easy-VQA")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail beyond the limits")
    args = parser.parse_args()
    settings = list(args.set)
    if args.root is not None:
        settings.append(f"data.root={args.root.resolve()}")
    summary = run(args.name, settings)
    figures, floors = figures_of(summary), summary["data"].get("floors", {})
    print("\n" + show(args.name, figures, floors))
    if args.write:
        kept = {"figures": figures, "floors": floors}
        print("written:", write(f"vqa_{args.name}", kept))
    broken = failures(args.name, figures) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
