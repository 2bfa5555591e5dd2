"""A fake trainer, whose state is a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ahead import pytest_generate_tests, reading  # noqa: F401

from trainbus_checkpointing import ModelCheckpointCallback
from training import Bus, MetricError
from training.plugin import MetricValue, Strategy, read_checkpoint, write_checkpoint


class FakeTrainer:
    """Runs epochs of ten steps over one checkpointing plugin."""

    steps_per_epoch = 10
    world_size, is_main = 1, True

    def __init__(self, save_dir: Path, plugin: ModelCheckpointCallback) -> None:
        self.save_dir, self.plugin = save_dir, plugin
        self.epoch = self.step = self.update = 0
        self.metrics: dict[str, MetricValue] = {}
        self.bus, self.strategy = Bus(), Strategy()
        self.plugins: dict[str, Any] = {"checkpointing": plugin}
        self.known = {"val_loss", "accuracy", "train_loss"}
        self.is_stopping = self.is_extra_evaluation = False
        self.stop_owner: str | None = None
        self.stop_reason: str | None = None
        self.requests: list[str] = []
        self.resumed_from: Path | None = None
        self.num_writes = 0

    @property
    def ends_epoch(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    def require_metric(self, name: str, owner: str, mode: object = None) -> None:
        if name not in self.known:
            raise MetricError(f"{owner} watches {name!r}, but there is: val_loss")

    def request_checkpoint(self, reason: str) -> None:
        self.requests.append(reason)

    def save_checkpoint(self, path: Path) -> Path:
        self.num_writes += 1
        plugins = {"checkpointing": self.plugin.state_dict()}
        weight = torch.tensor(self.step)
        counters = [self.epoch, self.step]
        state = {"model": weight, "plugins": plugins, "counters": counters}
        return write_checkpoint(path, state)

    def begin(self, resume: Path | None = None) -> FakeTrainer:
        """Start a run, as the kernel does."""
        self.plugin.on_setup(self)
        if resume is not None:
            state = read_checkpoint(resume)
            self.epoch, self.step = state["counters"]
            self.resumed_from = resume
            self.plugin.load_state_dict(state["plugins"]["checkpointing"])
        self.plugin.on_train_begin(self)
        self.plugin.on_epoch_begin(self)
        return self

    def measure(self, **metrics: float) -> None:
        for name, value in metrics.items():
            self.metrics[name] = MetricValue(value, self.step, self.epoch, "test")
        self.plugin.on_metrics(self, metrics)

    def run_steps(self, count: int, **metrics: float) -> None:
        """Train inside an epoch; evaluate at the end, and grant what is asked for."""
        for index in range(count):
            self.step += 1
            self.plugin.on_step_end(self)
            if metrics and index == count - 1:
                self.measure(**metrics)
            if self.requests:
                self.plugin.on_checkpoint(self, self.requests[-1])
            self.requests.clear()

    def run_epoch(self, stops: bool = False, **metrics: float) -> None:
        """Train one epoch and evaluate ``metrics``."""
        self.run_steps(self.steps_per_epoch * (self.epoch + 1) - self.step)
        self.epoch += 1
        self.is_stopping = stops
        self.measure(train_loss=1.0, **metrics)
        self.plugin.on_checkpoint(self, "epoch_end")


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[..., FakeTrainer]]:
    """Return a function that ends the run before and starts one with the options."""
    runs: list[FakeTrainer] = []

    def end() -> None:
        for trainer in runs:
            trainer.plugin.on_close(trainer)
        runs.clear()

    def start(resume: Path | None = None, **options: Any) -> FakeTrainer:
        end()
        runs.append(FakeTrainer(tmp_path, ModelCheckpointCallback(**options)))
        return runs[0].begin(resume)

    yield start
    end()
