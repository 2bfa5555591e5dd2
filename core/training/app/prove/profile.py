"""Print what each plugin cost in a run, and write it as a trace file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from training.bus.meter import Meter
from training.bus.syncs import counting_syncs
from training.files.durable import write_durably
from training.messages.tables import table

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["cost_table", "profiled"]


@contextmanager
def profiled(
    trainer: Trainer, is_on: bool, trace: str | Path | None = None
) -> Iterator[None]:
    """Account for the plugins' calls in the body; print a table at its end.

    Args:
        trainer: whose plugins.
        is_on: False does nothing, at no cost.
        trace: a file for chrome://tracing and ui.perfetto.dev.
    """
    if not is_on and trace is None:
        yield
        return
    trainer.bus.meter = meter = Meter(keep_events=trace is not None)
    try:
        with counting_syncs(meter, trainer.device):
            yield
    finally:
        trainer.bus.meter = None
        has_syncs = trainer.device.type == "cuda"
        lines = cost_table(meter, trainer.train_seconds, has_syncs)
        print("\n".join(["", *lines]))
        if trace is not None:
            text = json.dumps(meter.trace())
            write_durably(trace, lambda file: file.write(text.encode()))
            print(f"trace: {trace}")


def cost_table(meter: Meter, seconds: float, has_syncs: bool = True) -> list[str]:
    """Return lines: plugin and hook down, the dearest first, and the sum.

    Args:
        meter: what was accounted for.
        seconds: of the whole run.
        has_syncs: whether synchronisations were counted, as on CUDA.
    """
    rows = meter.table()
    total = sum(cost.seconds for *_, cost in rows)
    cells = [
        [
            plugin,
            hook,
            f"{cost.calls:,}",
            f"{cost.seconds * 1e3:.1f}",
            f"{cost.seconds / cost.calls * 1e6:.1f}",
            f"{100 * cost.seconds / seconds:.1f} %" if seconds else "",
            *([str(cost.syncs)] if has_syncs else []),
        ]
        for plugin, hook, cost in rows
    ]
    head = ["plugin", "hook", "calls", "ms", "us a call", "of the run"]
    head += ["syncs"] if has_syncs else []
    lines = table(head, cells, "<<")
    share = f", {100 * total / seconds:.1f} % of {seconds:.1f} s" if seconds else ""
    return [*lines, f"all plugins: {total * 1e3:.1f} ms{share}"]
