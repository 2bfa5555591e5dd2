"""What a plan says of a run on several processes: who computes and writes what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from training.plugin import Plan, count

if TYPE_CHECKING:
    from training.plugin import PlannedRun


def plan_of(run: PlannedRun, engine: str, data: str) -> Plan:
    """Return the plan of a run; empty where it is that of one process.

    Args:
        run: that is planned.
        engine: as in the configuration.
        data: likewise.
    """
    if run.processes == 1:
        return Plan()
    plugins = run.plugins.items()
    main = [name for name, each in plugins if getattr(each, "ranks", "all") == "main"]
    lines = [
        f"{run.processes}, engine {engine}; a step is of "
        f"{_rows(run.gradient_accumulation_steps, run.batch_size)} in all",
        *_parts(run, data),
        f"rank 0 writes and prints: {', '.join(['the run record', *main])}",
    ]
    return Plan(lines={"processes": lines})


def _rows(batches: int, size: int | None) -> str:
    told = count(batches, "batch")
    return told if size is None else f"{told} of {count(size, 'row')}"


def _parts(run: PlannedRun, data: str) -> Iterator[str]:
    """Yield which ranks get how much of each batch, as it is divided."""
    if data == "own":
        yield "each reads what its own loader yields"
        return
    if run.batch_size is None:
        yield "each gets its part of every batch"
        return
    least, over = divmod(run.batch_size, run.processes)
    if over:
        yield f"{_ranks(0, over)} {count(least + 1, 'row')} of each batch"
    if least:
        yield f"{_ranks(over, run.processes)} {count(least, 'row')} of each batch"
    else:
        yield f"{_ranks(over, run.processes)} nothing to compute: batches are too small"


def _ranks(first: int, end: int) -> str:
    if end - first == 1:
        return f"rank {first} gets"
    return f"ranks {first} to {end - 1} get"
