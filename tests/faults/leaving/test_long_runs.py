"""P9: no growth over thousands of steps."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.runs import Ids, build, loader_of

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, Trainer

Record = Callable[[str, object], None]


class Watches(Callback):
    """Counts file descriptors, threads and bytes now and then."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[tuple[int, int, int]] = []

    def on_epoch_end(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            size = pages * os.sysconf("SC_PAGE_SIZE")
            descriptors = len(os.listdir("/proc/self/fd"))
            self.seen.append((descriptors, threading.active_count(), size))


class Measures(Callback):
    """Evaluates with a value that falls and rises."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": 1.0 + trainer.epoch % 5}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("steps", "is_async"),
    [
        pytest.param(1_000, False, id="1,000 steps"),
        pytest.param(1_000, True, id="1,000 steps, saving in a thread"),
        pytest.param(20_000, False, id="20,000 steps", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.timeout(1800)
def test_p9_steps_saves_evaluations_and_logs_leave_nothing_open_and_no_memory(
    tmp_path: Path, steps: int, is_async: bool, record_property: Record
) -> None:
    from trainbus_logging import CSVLoggerCallback, TensorBoardCallback

    gc.collect()  # what tests before have left in circles
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    num_epochs = steps // 10
    watch = Watches(max(1, num_epochs // 20))
    plugins: list[Any] = [
        Measures(),
        watch,
        ModelCheckpointCallback(tmp_path, save_top_k=3, async_save=is_async),
        CSVLoggerCallback(tmp_path / "log.csv"),
        TensorBoardCallback(tmp_path / "tb", every_n_steps=10),
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
    early = watch.seen[len(watch.seen) // 4 :]
    descriptors, threads, sizes = zip(*early, strict=True)
    growth = sizes[-1] / sizes[0] - 1
    record_property("steps", steps)
    # At any one moment a writer in a thread may have its file and its folder open.
    assert min(descriptors[-5:]) == min(descriptors[:5]), descriptors
    assert max(descriptors) <= min(descriptors) + 1 + is_async
    assert max(threads) <= threads[0] + is_async
    assert growth < 0.05
    del trainer, plugins
    gc.collect()
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after == before
