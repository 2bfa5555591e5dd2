"""What it takes to open a data set of real size, for the first time and later.

Usage: python benchmarks/readers.py [--questions 443757] [--rows 5000000] [--check]

- **vqa_v2**: questions and annotations with ten answers each, as many and as long as
  the training split of VQA v2.
- **csv**: a table of ``--rows`` lines, turned into lines and indexed once.
- **jsonl**: the same rows as JSON lines, which are only indexed.

Each opening is a process of its own, with a cache folder that is empty the first time.
``bytes a row`` is what stays in memory; ``peak`` is of the process, the interpreter
included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environment import table, write

FIRST_LIMIT, SECOND_LIMIT, BYTES_LIMIT = 20.0, 1.0, 16.0
IMAGES = "train2014/COCO_train2014_{image_id:012d}.jpg"
WORDS = ["what", "color", "is", "the", "cat", "dog", "table", "how", "many", "left"]
ANSWERS = ["yes", "no", "2", "red", "on the table", "white", "1", "skateboarding",
           "black and white"]  # fmt: skip


def write_pair(folder: Path, count: int) -> dict[str, Any]:
    """Write questions and annotations as the official files have them, on one line."""
    draw = random.Random(0)
    head = '{"info": {"version": "2.0"}, "data_subtype": "train2014", '
    with (
        (folder / "questions.json").open("w") as asked,
        (folder / "annotations.json").open("w") as answered,
    ):
        asked.write(head + '"questions": [')
        answered.write(head + '"annotations": [')
        for number in range(count):
            comma = ", " if number else ""
            ids = f'"image_id": {number // 5 + 9}, "question_id": {number * 1000}'
            question = " ".join(draw.choices(WORDS, k=6))
            asked.write(f'{comma}{{{ids}, "question": "{question}?"}}')
            said = draw.choices(ANSWERS, k=10)
            answers = ", ".join(
                f'{{"answer": "{text}", "answer_confidence": "yes", "answer_id": {n}}}'
                for n, text in enumerate(said, 1)
            )
            answered.write(
                f'{comma}{{"question_type": "what is the", "multiple_choice_answer": '
                f'"{said[0]}", "answers": [{answers}], "answer_type": "other", {ids}}}'
            )
        asked.write("]}")
        answered.write("]}")
    return {
        "questions": str(folder / "questions.json"),
        "annotations": str(folder / "annotations.json"),
        "images": IMAGES,
    }


def write_table(folder: Path, count: int) -> dict[str, Any]:
    """Write a table of made-up questions."""
    path = folder / "rows.csv"
    with path.open("w") as file:
        file.write("image,question,answer\n")
        file.writelines(
            f'a.png,"how many, and what, is in picture {number}?",{number % 97}\n'
            for number in range(count)
        )
    return {"path": str(path)}


def write_lines(folder: Path, count: int) -> dict[str, Any]:
    """Write the rows of the table as JSON lines."""
    path = folder / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(
            '{"image": "a.png", "question": "how many, and what, is in picture '
            f'{number}?", "answer": "{number % 97}"}}\n'
            for number in range(count)
        )
    return {"path": str(path)}


def open_once(reader: str, options: dict[str, Any]) -> dict[str, Any]:
    """Open a data set in this process; return what it took."""
    from training.discovery.parts import find_part

    cls = find_part("reader", reader, "data.train")
    started = time.process_time()
    large = {"index_above_mb": 0} if reader == "jsonl" else {}
    rows = cls(**options, **large)
    seconds = time.process_time() - started
    started = time.process_time()
    for number in range(0, len(rows), max(1, len(rows) // 1000)):
        assert rows[number]["question"]
    index = rows._lines
    return {
        "rows": len(rows),
        "cpu_seconds": round(seconds, 2),
        "row_us": round((time.process_time() - started) / 1000 * 1e6, 1),
        "bytes_a_row": (index._starts.nbytes + index._blanks.nbytes) / len(rows),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(
    reader: str, make: Callable[[Path, int], dict[str, Any]], count: int
) -> dict[str, Any]:
    """Return what a first and a later opening take."""
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as name:
        options = make(Path(name), count)
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(name) / "cache")}
        command = [sys.executable, __file__, "--open", reader, json.dumps(options)]
        first, second = (
            json.loads(
                subprocess.run(
                    command, check=True, capture_output=True, text=True, env=environment
                ).stdout
            )
            for _ in range(2)
        )
    return {
        "rows": second["rows"],
        "first_open_cpu_seconds": first["cpu_seconds"],
        "first_peak_mib": first["peak_mib"],
        "second_open_cpu_seconds": second["cpu_seconds"],
        "second_peak_mib": second["peak_mib"],
        "bytes_a_row": round(second["bytes_a_row"], 2),
        "row_us": second["row_us"],
    }


def failures(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    limits = {
        "second_open_cpu_seconds": SECOND_LIMIT,
        "bytes_a_row": BYTES_LIMIT,
    }
    found = [
        f"{reader}: {name} is {row[name]}, limit is {limit}"
        for reader, row in results.items()
        for name, limit in limits.items()
        if row[name] > limit
    ]
    first = results["vqa_v2"]["first_open_cpu_seconds"]
    if first > FIRST_LIMIT:
        found.append(f"vqa_v2: the first opening takes {first}, limit {FIRST_LIMIT}")
    return found


def main() -> int:
    """Measure and print; return 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=443_757)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--open", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    if args.open:
        print(json.dumps(open_once(args.open[0], json.loads(args.open[1]))))
        return 0
    results = {
        "vqa_v2": measure("vqa_v2", write_pair, args.questions),
        "csv": measure("csv", write_table, args.rows),
        "jsonl": measure("jsonl", write_lines, args.rows),
    }
    names = list(results["csv"])
    cells = [[name, *(str(row[name]) for row in results.values())] for name in names]
    print(table(["", *results], cells))
    if args.write:
        print("written:", write("readers", results))
    broken = failures(results) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
