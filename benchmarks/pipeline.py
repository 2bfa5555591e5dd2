"""What data costs: a batch beside a step, and five million rows.

Usage: python benchmarks/pipeline.py [--rounds 5] [--rows 5000000] [--write] [--check]

- **batches**: milliseconds to make a training batch of ``config/demo.yaml`` (pictures,
  questions, answers) on the first pass and on later ones, beside a
  training step of the small model on such a batch. ``share`` is batch over step: below
  1 one worker process keeps up.
- **rows**: a file of JSON lines with made-up questions; each opening in a process of
  its own. The first finds the lines, the second finds the index that the first kept.
  ``bytes a row`` is what the index holds; the shuffle is exact if a pass meets every
  row once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from environment import table, write
from overhead import prepare_process

ROOT = Path(__file__).resolve().parents[1]
#: Seconds to open the large file for the first and for the second time.
FIRST_LIMIT, SECOND_LIMIT = 10.0, 1.0
BYTES_LIMIT = 16.0
SHARE_LIMIT = 1.0


def milliseconds(batches: Iterator[Any], count: int) -> float:
    """Return the median time to get each of ``count`` batches."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        next(batches)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def measure_batches(rounds: int, folder: Path) -> dict[str, float]:
    """Return median milliseconds of a batch, fresh and again, and of a step."""
    from training.app.building.components import build_parts
    from training.app.building.optimizer import build_optimizer
    from training.app.config.load import load_config

    config = load_config(ROOT / "config" / "demo.yaml", [f"training.save_dir={folder}"])
    parts = build_parts(config)
    model = parts.model.train()
    optimizer = build_optimizer(model, config.training.optimizer)
    loader = parts.pipeline.get_train_dataloader()
    count = len(loader)
    first = milliseconds(iter(loader), count)

    def step(batch: Any) -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    again, steps = [], []
    for _ in range(rounds):
        again.append(milliseconds(iter(loader), count))
        some = [batch for batch, _ in zip(loader, range(8), strict=False)]
        steps.append(milliseconds(map(step, some), len(some)))
    batch, taken = statistics.median(again), statistics.median(steps)
    return {
        "first_pass_ms": round(first, 2),
        "batch_ms": round(batch, 2),
        "step_ms": round(taken, 2),
        "share": round(batch / taken, 3),
        "batch_size": config.data.batch_size,
    }


def write_rows(path: Path, count: int) -> None:
    """Write ``count`` rows that differ, all about one picture."""
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, 10_000):
            file.writelines(
                '{"image": "a.png", "question": "how many things are '
                f'in picture {number}?", "answer": "{number % 97}"}}\n'
                for number in range(start, min(count, start + 10_000))
            )


def open_rows(path: Path) -> dict[str, Any]:
    """Open a large file once, in this process; return what it took."""
    from trainbus_data.readers.json_lines import JsonLines
    from trainbus_data.rows.indexed_rows import IndexedRows
    from trainbus_data.rows.row_checks import RowChecks
    from trainbus_data.vqa.task import VQA

    started = time.perf_counter()
    reader = JsonLines(path, index_above_mb=0)
    rows = IndexedRows(reader, RowChecks(VQA(), reader.root))
    seconds = time.perf_counter() - started
    index = rows._reader._lines
    started = time.perf_counter()
    for number in range(0, len(rows), max(1, len(rows) // 1000)):
        assert f"picture {number}?" in rows[number]["question"]
    return {
        "seconds": seconds,
        "rows": len(rows),
        "bytes_a_row": (index._starts.nbytes + index._left_out.nbytes) / len(rows),
        "row_us": (time.perf_counter() - started) / 1000 * 1e6,
    }


def shuffle(count: int) -> dict[str, Any]:
    """Return whether a pass meets every row once, and seconds to the first and last."""
    from training.feed.permutation import Permutation

    seen = torch.zeros(count, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    order = iter(Permutation(count, generator))
    seen[next(order)] += 1
    first = time.perf_counter() - started
    numbers = torch.tensor(list(order))
    seconds = time.perf_counter() - started
    seen.index_add_(0, numbers, torch.ones(count - 1, dtype=torch.uint8))
    return {
        "exact": bool((seen == 1).all()),
        "first_seconds": round(first, 3),
        "pass_seconds": round(seconds, 3),
    }


def measure_rows(count: int, folder: Path) -> dict[str, Any]:
    """Return what it takes to open, read and shuffle ``count`` rows."""
    from PIL import Image

    path = folder / "rows.jsonl"
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    write_rows(path, count)
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    opened = []
    for _ in range(2):
        command = [sys.executable, __file__, "--open", str(path)]
        text = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout
        opened.append(json.loads(text))
    first, second = opened
    return {
        "rows": second["rows"],
        "file_mb": round(path.stat().st_size / 1e6),
        "first_open_seconds": round(first["seconds"], 3),
        "second_open_seconds": round(second["seconds"], 3),
        "bytes_a_row": round(second["bytes_a_row"], 2),
        "row_us": round(second["row_us"], 1),
        "shuffle": shuffle(count),
    }


def failures(batches: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    limits: list[tuple[str, Callable[[], float], float]] = [
        ("batch over step", lambda: batches["share"], SHARE_LIMIT),
        ("first open, s", lambda: rows["first_open_seconds"], FIRST_LIMIT),
        ("second open, s", lambda: rows["second_open_seconds"], SECOND_LIMIT),
        ("bytes a row", lambda: rows["bytes_a_row"], BYTES_LIMIT),
    ]
    found = [
        f"{name}: {value()}, limit is {limit}"
        for name, value, limit in limits
        if value() > limit
    ]
    return found + ([] if rows["shuffle"]["exact"] else ["the shuffle is not exact"])


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    prepare_process()
    if args.open:
        print(json.dumps(open_rows(args.open)))
        return 0
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as name:
        batches = measure_batches(args.rounds, Path(name))
        rows = measure_rows(args.rows, Path(name))
    cells = [[key, str(value)] for key, value in batches.items()]
    print(table([f"{batches['batch_size']} rows of the demonstration", ""], cells))
    cells = [[key, str(value)] for key, value in rows.items() if key != "shuffle"]
    cells += [[f"shuffle: {key}", str(value)] for key, value in rows["shuffle"].items()]
    print("\n" + table(["a file of JSON lines", ""], cells))
    if args.write:
        print("written:", write("pipeline", {"batches": batches, "rows": rows}))
    broken = failures(batches, rows) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
