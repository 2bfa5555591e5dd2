"""What ``gpu.py`` asks of a card before it measures: waits, and two kinds of steps."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_contestants import bare, trainbus
from gpu_work import Case, device, on_cuda
from overhead import Terminal
from torch import Tensor, nn

from trainbus_logging import progress_bar
from training import (
    CSVLoggerCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
    Trainer,
)

#: Calls of the CUDA runtime in which the CPU waits. torch's sync debug mode hears of
#: copies and of ``item()``, and not of an event that is waited for.
WAITING_CALLS = (
    *("cudaEventSynchronize", "cudaStreamSynchronize", "cudaDeviceSynchronize"),
    *("cudaMalloc", "cudaHostAlloc"),
)
#: More of them a step than the bare loop makes are a wait.
MOST_MORE = 0.1


def measure_waits(case: Case, folder: Path) -> dict[str, dict[str, float]]:
    """Return who was profiled -> call of the runtime -> how often a step.

    The bare loop comes first: what it calls, and what the profiler calls as it stops,
    is nobody else's. A schedule that follows updates waits under fp16 on purpose, once
    a step: it must know whether there was one.
    """
    clipped = {"max_grad_norm": 1.0}
    by_epoch = {**clipped, "precision": "fp16", "schedule": "epoch"}
    ways: dict[str, Any] = {
        "bare loop": bare(),
        "bf16": _observed(folder / "bf16", **clipped),
        "fp32": _observed(folder / "fp32", precision="fp32", **clipped),
        "fp16": _observed(folder / "fp16", precision="fp16"),
        "fp16, schedule an epoch": _observed(folder / "epoch", **by_epoch),
        "fp16, schedule a step": _observed(
            folder / "step", precision="fp16", schedule="step"
        ),
    }
    return {name: _calls(way, case) for name, way in ways.items()}


def waits_more(found: dict[str, dict[str, float]]) -> list[str]:
    """Return a sentence for each who waits more often a step than the bare loop."""
    base = sum(found["bare loop"].values())
    sentences = []
    for name, calls in found.items():
        meant = 1.0 if name == "fp16, schedule a step" else 0.0
        more = sum(calls.values()) - base
        if more > meant + MOST_MORE:
            sentences.append(f"waits in {name}: {more:.2f} more a step than bare")
    return sentences


def _observed(folder: Path, schedule: str | None = None, **options: Any) -> Any:
    """Return a contestant with a bar at every batch, a log, and checkpoints."""

    def contestant(case: Case, _: Path) -> Any:
        progress_bar.BAR_SECONDS = 0.0  # a refresh at every batch
        bar, log = ProgressBarCallback(), CSVLoggerCallback()
        bar.stream = Terminal()  # type: ignore[assignment]
        for observer in (bar, log):  # a wait must not be survived as a failed log
            observer.failure = "fatal"
        callbacks: list[Any] = [
            *(bar, log, ModelCheckpointCallback(monitor="train_loss"))
        ]
        if schedule:
            interval: Any = schedule
            callbacks.append(
                LearningRateSchedulerCallback(type="cosine", interval=interval)
            )
        given = {"precision": "bf16", **options, "callbacks": callbacks}
        return trainbus(**given)(case, folder)

    return contestant


def _calls(contestant: Any, case: Case) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if on_cuda() else []
    profiler = profile(activities=kinds)
    steps = min(20, case.num_steps)
    watched = dataclasses.replace(case, num_steps=steps, profiler=profiler)
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        contestant(watched, Path(folder))
    heard = Counter(event.name for event in profiler.events() or [])
    return {name: heard[name] / steps for name in WAITING_CALLS}


class Drops(nn.Module):
    """A perceptron with dropout, which draws in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the mean squared error."""
        return {"loss": nn.functional.mse_loss(self.layers(x), y)}


def check_dropout() -> str:
    """Return "same" if replayed steps draw what eager ones draw, else how far apart."""
    eager, replayed = (
        _trained(_adamw, precision="fp32", cuda_graphs=graphs)
        for graphs in (False, True)
    )
    return _compared(eager, replayed, 0.0)


def check_momentum() -> str:
    """Return "same" if a fused SGD with momentum steps under fp16 as a plain one does.

    The first loss scale is so high that first steps overflow.
    """
    plain, fused = (
        _trained(
            lambda p, fused=fused: torch.optim.SGD(
                p, lr=0.01, momentum=0.9, fused=fused
            ),
            precision="fp16",
        )
        for fused in (False, True)
    )
    return _compared(plain, fused, 1e-4)


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, fused=True)


def _trained(make: Callable[[Any], torch.optim.Optimizer], **options: Any) -> Any:
    torch.manual_seed(0)
    model = Drops().to(device())
    draws = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(16, 32, generator=draws), torch.randn(16, 1, generator=draws))
        for _ in range(30)
    ]
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        Trainer(
            model,
            batches,
            optimizer=make(model.parameters()),
            device=device(),
            save_dir=folder,
            seed=0,
            loss_per="samples",
            **options,
        ).train()
    return [value.detach().cpu() for value in model.state_dict().values()]


def _compared(ones: list[Tensor], others: list[Tensor], most: float) -> str:
    pairs = zip(ones, others, strict=True)
    apart = max(float((one - other).abs().max()) for one, other in pairs)
    return "same" if apart <= most else f"weights are {apart:.3g} apart"


CHECKS: dict[str, Callable[[], str]] = {
    "dropout, graphs as eager": check_dropout,
    "fp16, fused SGD with momentum as plain": check_momentum,
}
