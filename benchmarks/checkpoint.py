"""How long a save stops training, and when it is safe: beside a plain ``torch.save``.

A model of ``--megabytes`` is trained a few steps with each way of saving, in turn, in
one process. ``stall`` is how much longer a step with the save takes than one without;
``durable`` the time from the request until the file is complete, renamed and synced, or
for ``torch.save`` until it returns, which promises nothing about the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import environment
import torch
from torch import nn

from trainbus_checkpointing.staging import Staging
from training.checkpoint.state import capture
from training.checkpoint_io import read_checkpoint, write_checkpoint
from training.trainer import Trainer

WAYS = ("torch.save", "torch.save + fsync", "trainbus", "trainbus async")


class Layers(nn.Module):
    """Square layers of 16 MB each; a step touches every weight."""

    def __init__(self, megabytes: int) -> None:
        super().__init__()
        # The optimizer holds as much again (momentum): half of the state is the model.
        self.layers = nn.ModuleList(
            nn.Linear(2000, 2000, bias=False) for _ in range(max(1, megabytes // 32))
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a loss that every weight has a share in."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return {"loss": x.square().mean()}


class Saver:
    """Saves at some steps in one of the ways, and measures."""

    def __init__(self, way: str, folder: Path, at: set[int]) -> None:
        self.way, self.folder, self.at = way, folder, at
        self.staging = Staging()
        self.stalls: list[float] = []
        self.durable: list[float] = []
        self.thread: threading.Thread | None = None

    def save(self, trainer: Trainer) -> None:
        """Save now; append the stall, and in time the moment of durability."""
        began = time.perf_counter()
        path = self.folder / f"{trainer.step}.pt"
        self.wait()
        state = capture(trainer)
        if self.way == "trainbus async":
            state = self.staging.copy(state)
            self.thread = threading.Thread(
                target=self._write, args=(path, state, began)
            )
            self.thread.start()
        else:
            self._write(path, state, began)
        self.stalls.append(time.perf_counter() - began)

    def wait(self) -> None:
        """Wait for a write in a thread."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write(self, path: Path, state: dict[str, Any], began: float) -> None:
        if self.way.startswith("torch.save"):
            with open(path, "wb") as file:
                torch.save(state, file)
                if self.way.endswith("fsync"):
                    file.flush()
                    os.fsync(file.fileno())
        else:
            write_checkpoint(path, state)
        self.durable.append(time.perf_counter() - began)


def measure(way: str, folder: Path, megabytes: int, saves: int) -> dict[str, Any]:
    """Return median and range of stall and time to durable, in seconds, of one way."""
    torch.manual_seed(0)
    model = Layers(megabytes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    saver = Saver(way, folder, set())
    steps: list[float] = []
    gap = 12  # steps between two saves: time for a thread to end
    total = 2 + gap * (saves + 1)

    class Drives:
        """Hears the end of each step."""

        last = 0.0

        def on_step_end(self, trainer: Trainer) -> None:
            steps.append(time.perf_counter() - self.last)
            if trainer.step % gap == 2:
                saver.save(trainer)
            self.last = time.perf_counter()

    from training import hookimpl

    Drives.on_step_end = hookimpl(Drives.on_step_end)  # type: ignore[method-assign]
    trainer = Trainer(
        model,
        [torch.ones(1, 2000)] * total,
        optimizer=optimizer,
        callbacks=[Drives()],
        step_fn=lambda model, batch: model(batch)["loss"],
        device="cpu",
        seed=0,
    )
    trainer.train()
    saver.wait()
    for path in folder.glob("*.pt"):
        read_checkpoint(path) if way.startswith("trainbus") else None
    first, *later = saver.stalls
    size = sum(path.stat().st_size for path in folder.glob("*.pt")) / len(saver.stalls)
    return {
        "way": way,
        "megabytes": round(size / 1e6),
        "first_stall": first,
        "stall": statistics.median(later),
        "stall_range": [min(later), max(later)],
        "durable": statistics.median(saver.durable[1:]),
        "durable_range": [min(saver.durable[1:]), max(saver.durable[1:])],
        "step": statistics.median(steps[2:]),
    }


def main() -> None:
    """Measure every way; print a table; keep it with ``--write``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of the state")
    parser.add_argument("--saves", type=int, default=5, help="of each way, after one")
    parser.add_argument("--folder", help="where to write (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="keep it in results/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for way in WAYS:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            result = measure(way, folder, arguments.megabytes, arguments.saves)
        finally:
            shutil.rmtree(folder)
        results.append(result)
    plain = results[0]
    rows = [
        [
            each["way"],
            f"{each['stall']:.3f}",
            f"{each['stall'] / plain['stall']:.2f}",
            f"{each['durable']:.3f}",
            f"{each['durable'] / plain['durable']:.2f}",
            f"{each['first_stall']:.3f}",
        ]
        for each in results
    ]
    heads = ["way", "stall s", "x plain", "durable s", "x plain", "first stall s"]
    print(f"{plain['megabytes']} MB, {arguments.saves} saves, median")
    print(environment.table(heads, rows))
    if arguments.write:
        print(environment.write("checkpoint", {"results": results}))


if __name__ == "__main__":
    main()
