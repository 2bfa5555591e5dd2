"""What a figure depends on: command, versions, processor, date. And how to keep it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
DISTRIBUTIONS = (
    "trainbus",
    "torch",
    "transformers",
    "pluggy",
    "tqdm",
    "lightning",
    "pytorch-ignite",
    "accelerate",
)


def leave_optional_off() -> None:
    """Let this process, and what it starts, train as the peers do: nothing optional."""
    os.environ.update(
        TRAINBUS_DEFAULTS="off", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"
    )


def describe() -> dict[str, Any]:
    """Return the circumstances of this run as JSON values."""
    script = os.path.relpath(sys.argv[0], RESULTS.parents[1])
    return {
        "command": " ".join(["python", script, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "versions": _versions(),
    }


def cpu_name() -> str:
    """Return what the system calls the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write(name: str, results: dict[str, Any]) -> Path:
    """Write ``results`` and the circumstances to ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({**describe(), **results}, indent=2)
    path.write_text(text + "\n")
    return path


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return an aligned table; the first column is left-aligned, the others right."""
    lines = [headings, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    first, *rest = widths
    aligned = (
        [line[0].ljust(first), *map(str.rjust, line[1:], rest)] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)
