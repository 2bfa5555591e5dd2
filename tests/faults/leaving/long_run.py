"""A long run in a process of its own, and what the process holds meanwhile.

Usage: python long_run.py FOLDER STEPS IS_ASYNC

Prints as JSON what it holds ``before`` the run, 20 times ``during`` it, and ``after``:
each a list of what its file descriptors lead to, the number of its threads and its
bytes of memory.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from faults.runs import Ids, build, loader_of

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_logging import CSVLoggerCallback, TensorBoardCallback
from training import Callback, Trainer

#: What a process holds: open files, threads, bytes.
Held = tuple[list[str], int, int]


def held() -> Held:
    """Return what this process holds, without what waits in circles."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    size = pages * os.sysconf("SC_PAGE_SIZE")
    return _open_files(), threading.active_count(), size


def _open_files() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing itself, or a writer has closed
            continue
    return sorted(found)


class Watches(Callback):
    """Looks now and then."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[Held] = []

    def on_epoch_end(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every == 0:
            self.seen.append(held())


class Measures(Callback):
    """Evaluates with a value that falls and rises."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": 1.0 + trainer.epoch % 5}


def watched_run(folder: Path, steps: int, is_async: bool) -> list[Held]:
    """Train ``steps`` steps in epochs of ten; return what was held 20 times."""
    num_epochs = steps // 10
    watch = Watches(max(1, num_epochs // 20))
    plugins: list[Any] = [
        Measures(),
        watch,
        ModelCheckpointCallback(folder, save_top_k=3, async_save=is_async),
        CSVLoggerCallback(folder / "log.csv"),
        TensorBoardCallback(folder / "tb", every_n_steps=10),
    ]
    loader = loader_of()
    loader.dataset.x = loader.dataset.x.repeat(2, 1)[:20]
    loader.dataset.y = loader.dataset.y.repeat(2, 1)[:20]
    trainer = build(*plugins, loader=loader, num_epochs=num_epochs)
    ids = trainer.plugins["ids"]
    assert isinstance(ids, Ids)
    ids.on_batch_begin = lambda **_: None  # type: ignore[method-assign]
    trainer.bus.unregister("ids")
    trainer.train()
    assert trainer.step == steps
    return watch.seen


def main(folder: str, steps: str, is_async: str) -> None:
    """Run and print."""
    before = held()
    during = watched_run(Path(folder), int(steps), is_async == "True")
    found = {"before": before, "during": during, "after": held()}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
