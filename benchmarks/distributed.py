"""What a trainer adds to a hand-written DDP loop of the same batches.

Usage: python benchmarks/distributed.py [--processes 2] [--rounds 15] [--steps 150]
       [--write] [--check]

It starts itself anew by torchrun, each process with one thread. In rounds the
contestants train in turns, from the same weights, on the same parts of the same
batches; the figure is the median of (time / time of the hand-written loop in the same
round) as the main process measures it between two barriers. Lightning, accelerate and
transformers' Trainer take part where they are installed.

A second table says how far the weights of each way are from those of one process where
batches are ragged: rows with token weights from 1 to 40, a last batch of 3 rows. A loop
that takes the mean of the processes' means is what DDP does by itself; each peer
divides and weighs the rows in its own way. A third says how long a sum of six numbers
takes that the hosts wait for, by the trainer's way and by gloo's.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from distributed_peers import installed
from environment import leave_optional_off, table, write
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from training import Trainer

#: What the trainer may cost: its time over that of the loop, at 1 M parameters.
LIMIT = 1.05
#: How far weights may be from those of one process.
CLOSE = 1e-6
WIDTH, ROWS = 700, 64
#: Variable that names the file with the weights of one process.
ALONE = "BENCH_ALONE"


def wide_model() -> nn.Module:
    """Return a network of 1.0 M parameters."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1))


def mean_error(model: nn.Module, batch: Sequence[Tensor]) -> dict[str, Any]:
    """Return the mean squared error and the number of rows."""
    x, y = batch
    return {"loss": nn.functional.mse_loss(model(x), y), "weight": len(x)}


def batches_of(steps: int) -> list[tuple[Tensor, Tensor]]:
    """Return ``steps`` global batches of 64 rows."""
    drawn = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(ROWS, WIDTH, generator=drawn),
            torch.randn(ROWS, 1, generator=drawn),
        )
        for _ in range(steps)
    ]


def parts_of(batches: list[Any]) -> list[Any]:
    """Return this process's rows of each batch."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return [tuple(t.chunk(size)[rank] for t in batch) for batch in batches]


def by_hand(model: nn.Module, batches: list[Any]) -> Callable[[], None]:
    """Return the usual loop: DDP around the model, each process its part."""
    parts = parts_of(batches)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def train() -> None:
        ddp = DistributedDataParallel(model)  # as the trainer does, once a run
        for x, y in parts:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(ddp(x), y).backward()
            optimizer.step()

    return train


def trainer_of(model: nn.Module, batches: list[Any]) -> Trainer:
    """Return a trainer, which divides the batches itself."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    return Trainer(
        model,
        batches,
        optimizer=optimizer,
        step_fn=mean_error,
        loss_per="samples",  # not measured: that is a matter of the start
        plugins=["distributed"],
        device="cpu",
    )


def by_trainer(model: nn.Module, batches: list[Any]) -> Callable[[], None]:
    """Return the same of a trainer."""
    return trainer_of(model, batches).train


def sums(times: int = 500) -> dict[str, float]:
    """Return the median seconds of a sum of six numbers, by each way."""
    strategy = trainer_of(wide_model(), batches_of(1)).strategy
    numbers = [1.0] * 6
    ways: dict[str, Callable[[], Any]] = {
        "trainbus": lambda: strategy.sum(numbers),
        "gloo": lambda: torch.distributed.all_reduce(torch.tensor(numbers)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, way in ways.items():
            torch.distributed.barrier()
            began = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in taken.items()}


def contestants() -> dict[str, Callable[[nn.Module, list[Any]], Callable[[], Any]]]:
    """Return who takes part: the loop, the trainer, and the peers that are here."""
    everybody: dict[str, Any] = {"hand-written loop": by_hand, "trainbus": by_trainer}
    for name, (_, timed, _) in installed().items():
        everybody[name] = lambda model, batches, timed=timed: timed(
            model, parts_of(batches), mean_error
        )
    return everybody


class Ragged(Dataset[Any]):
    """Rows that weigh 1 to 40 tokens."""

    def __len__(self) -> int:
        return 35

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        mask = (torch.arange(40) < 1 + (index * 17) % 40).float()
        return {
            "x": torch.randn(40, 8, generator=drawn),
            "y": torch.randn(40, generator=drawn),
            "mask": mask,
        }


def small_model() -> nn.Module:
    """Return a network for the rows of ``Ragged``."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


def token_error(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return the mean over tokens, and how many there are."""
    error = (model(batch["x"]).squeeze(-1) - batch["y"]) ** 2
    tokens = batch["mask"].sum()
    return {"loss": (error * batch["mask"]).sum() / tokens, "weight": tokens.item()}


def ragged_by_trainer(plugins: list[Any]) -> list[Tensor]:
    """Return the weights after two epochs."""
    model = small_model()
    Trainer(
        model,
        DataLoader(Ragged(), batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        step_fn=token_error,
        plugins=plugins,
        gradient_accumulation_steps=2,
        num_epochs=2,
        device="cpu",
    ).train()
    return [p.detach().clone() for p in model.parameters()]


def ragged_by_hand() -> list[Tensor]:
    """Return the weights of a loop that averages the means of the processes."""
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ddp = DistributedDataParallel(model)
    batches = list(DataLoader(Ragged(), batch_size=4))
    for _ in range(2):
        for number, batch in enumerate(batches, 1):
            part = {name: t.tensor_split(size)[rank] for name, t in batch.items()}
            (token_error(ddp, part)["loss"] / 2).backward()
            if number % 2 == 0 or number == len(batches):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return [p.detach().clone() for p in model.parameters()]


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def measure(rounds: int, steps: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return each one's ratios, and how far its weights are from the loop's."""
    start, batches, everybody = wide_model(), batches_of(steps), contestants()
    ratios: dict[str, list[float]] = {name: [] for name in everybody}
    apart = dict.fromkeys(everybody, 0.0)
    by = next(iter(everybody))
    for number in range(rounds + 1):
        seconds, weights = {}, {}
        order = list(everybody)
        for name in order if number % 2 else reversed(order):
            model = copy.deepcopy(start)
            train = everybody[name](model, batches)
            torch.distributed.barrier()
            began = time.perf_counter()
            train()
            torch.distributed.barrier()
            seconds[name] = time.perf_counter() - began
            weights[name] = [p.detach() for p in model.parameters()]
        for name in everybody:
            apart[name] = max(apart[name], furthest(weights[by], weights[name]))
            if number:  # the first one warms up
                ratios[name].append(seconds[name] / seconds[by])
    return ratios, apart


def run(options: argparse.Namespace) -> int:
    """Measure, on each process; the main one tells."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        return measured(options)
    finally:
        torch.distributed.destroy_process_group()


def measured(options: argparse.Namespace) -> int:
    """Measure in a group that is joined."""
    ratios, apart = measure(options.rounds, options.steps)
    waited = sums()
    weights = {
        "trainbus": ragged_by_trainer(["distributed"]),
        "mean of means": ragged_by_hand(),
    }
    for name, (_, _, ragged) in installed().items():
        weights[name] = ragged(small_model(), Ragged(), token_error)
    if torch.distributed.get_rank():
        return 0
    alone = torch.load(os.environ[ALONE], weights_only=True)
    away = {name: furthest(alone, each) for name, each in weights.items()}
    figures = {
        name: {"ratio": statistics.median(r), "low": min(r), "high": max(r)}
        for name, r in ratios.items()
    }
    tell(figures, apart, away)
    rows = [[name, f"{seconds * 1e3:.3f}"] for name, seconds in waited.items()]
    print(table(["a sum of six numbers", "ms"], rows))
    if options.write:
        results = {"loop": figures, "apart": apart, "ragged": away, "sum_s": waited}
        write("distributed", {**results, "processes": options.processes})
    is_slow = figures["trainbus"]["ratio"] > LIMIT
    is_off = max(apart["trainbus"], away["trainbus"]) > CLOSE
    return int(options.check and (is_slow or is_off))


def tell(
    figures: dict[str, dict[str, float]],
    apart: dict[str, float],
    away: dict[str, float],
) -> None:
    """Print what was trained."""
    rows = [
        [name, f"{f['ratio']:.3f}", f"{f['low']:.3f} to {f['high']:.3f}", f"{off:.1e}"]
        for (name, f), off in zip(figures.items(), apart.values(), strict=True)
    ]
    print(table(["", "x hand-written loop", "range", "weights apart"], rows))
    distances = [[name, f"{value:.1e}"] for name, value in away.items()]
    print(table(["ragged batches", "weights from those of one process"], distances))


def main() -> int:
    """Start the processes, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if "RANK" in os.environ:
        return run(options)
    leave_optional_off()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        alone = os.path.join(folder, "alone.pt")
        torch.save(ragged_by_trainer([]), alone)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(options.processes), __file__]
        environment = {**os.environ, ALONE: alone}
        command = [*launcher, *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
