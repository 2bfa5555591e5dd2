"""What training costs on a CUDA device: waits, copies, throughput, memory.

Usage: python benchmarks/gpu.py [--budget 500] [--write] [--check]
       python benchmarks/gpu.py --smoke        # on a CPU: toy sizes, nothing is kept

One call measures, in this order and as long as the seconds of ``--budget`` last:

- **waits**: 200 steps in each precision, with clipping, a progress bar, a CSV log and
  checkpoints, under ``torch.cuda.set_sync_debug_mode("error")``. The bar refreshes
  at every batch.
- **tiny**: the demonstration's BLIP, batch 16: launching kernels is what takes time.
- **base**: a BLIP of the size of blip-vqa-base, 384 pixels, bf16, batch 16 and 64.
- **profile**: how much of the copying to the device happens while kernels run, and how
  much of the time any kernel runs.

``x bare`` is time a step over that of the bare loop in the same round; contestants take
turns, and a figure is the median over rounds. The bare loop and the peers run compiled,
too, beside a compiled trainbus. Weights of all are compared with the bare loop's; a
compiled model rounds otherwise, so the largest difference is given. Exit code 2: there
is no CUDA device.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from environment import table, write
from gpu_contestants import Contestant, contestants, trainbus
from gpu_work import (
    Case,
    build_model,
    common,
    flops_of,
    length,
    make_batches,
    on_cuda,
    state,
    union,
)
from overhead import Terminal

from trainbus_logging import progress_bar
from training import (
    CSVLoggerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
    Trainer,
)
from training.callbacks import Callback

#: Dense bf16 operations a second, from the vendor's data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
#: The most time a step over the bare loop, and peak memory over its.
LIMIT_TIME, LIMIT_MEMORY = 1.00, 1.01
#: How often everybody runs, in turns, where there is time.
ROUNDS = 3


class NoWaits(Callback):
    """Forbids to wait for the device from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def on_step_end(self, trainer: Trainer) -> None:
        """Switch torch's check on, and off again."""
        if on_cuda() and trainer.step in (self.first, self.last):
            mode = "error" if trainer.step == self.first else "default"
            torch.cuda.set_sync_debug_mode(mode)


def measure_waits(case: Case, folder: Path) -> dict[str, str]:
    """Return for each precision "none", or what waited."""
    found = {}
    progress_bar.BAR_SECONDS = 0.0  # a refresh at every batch
    for precision in ("fp32", "bf16", "fp16"):
        model, save_dir = case.model(), folder / precision
        batches = case.batches * (1 + (case.num_warm + case.num_steps) // 4)
        bar, log = ProgressBarCallback(), CSVLoggerCallback()
        bar.stream = Terminal()  # type: ignore[assignment]
        for observer in (bar, log):  # a wait must not be survived as a failed log
            observer.failure = "fatal"
        trainer = Trainer(
            model,
            batches,
            optimizer=case.optimizer(model),
            precision=precision,
            max_grad_norm=1.0,
            save_dir=save_dir,
            callbacks=[
                NoWaits(case.num_warm, case.num_warm + case.num_steps - 1),
                bar,
                log,
                ModelCheckpointCallback(monitor="train_loss"),
            ],
        )
        try:
            trainer.train()
            found[precision] = "none"
        except RuntimeError as error:
            found[precision] = str(error).partition("\n")[0]
        finally:
            if on_cuda():
                torch.cuda.set_sync_debug_mode("default")
    return found


def run_once(contestant: Contestant, case: Case) -> dict[str, Any]:
    """Train once; return seconds a step, peak memory and the weights."""
    gc.collect()
    if on_cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        with contextlib.redirect_stdout(Terminal()):
            model, clock = contestant(case, Path(folder))
        seconds = clock.seconds()
    peak = torch.cuda.max_memory_allocated() if on_cuda() else 0
    return {"seconds": seconds, "peak": peak, "weights": state(model)}


def measure_contest(
    case: Case, who: dict[str, Contestant], share: float, deadline: float
) -> Any:
    """Return the figures of everybody there was time for, the bare loop first.

    Everybody runs once, and then again in turns, up to ``ROUNDS`` times.

    Args:
        case: what is trained.
        who: trains it.
        share: seconds after which no further round begins.
        deadline: moment after which nobody begins.
    """
    flops, skipped, began = flops_of(case), {}, time.monotonic()
    runs: dict[str, list[Any]] = {name: [] for name in who}
    for index in range(ROUNDS):
        if index and time.monotonic() > began + share:
            break
        for name in [each for each in who if each not in skipped]:
            if time.monotonic() > deadline:
                skipped |= {} if runs[name] else {name: "out of time"}
                continue
            try:
                found = run_once(who[name], case)
            except Exception as error:  # one failure must not cost the other figures
                skipped[name] = f"{type(error).__name__}: {error}"[:200]
                continue
            if runs[name]:
                del found["weights"]  # those of the first round are compared
            runs[name].append(found)
    bare = next((done for done in runs.values() if done), [])
    return {
        name: figures_of(done, bare, case, flops)
        if done
        else {"skipped": skipped[name]}
        for name, done in runs.items()
    }


def figures_of(runs: Any, bares: Any, case: Case, flops: int) -> dict[str, Any]:
    """Return one contestant's figures, medians over its rounds."""
    peak = next((v for k, v in PEAK_FLOPS.items() if k in device_name()), None)
    pairs = zip(runs, bares, strict=False)
    ratio = statistics.median(own["seconds"] / bare["seconds"] for own, bare in pairs)
    found, bare = {**runs[0]}, bares[0]
    found["seconds"] = statistics.median(each["seconds"] for each in runs)
    pairs = zip(found["weights"].values(), bare["weights"].values(), strict=True)
    apart = max(float((a.float() - b.float()).abs().max()) for a, b in pairs)
    rate = flops / found["seconds"]
    memory = round(found["peak"] / bare["peak"], 4) if bare["peak"] else None
    return {
        "ms_per_step": round(found["seconds"] * 1e3, 3),
        "samples_per_second": round(case.batch_size / found["seconds"], 1),
        "ratio": round(ratio, 4),
        "rounds": len(runs),
        "peak_mb": round(found["peak"] / 1e6),
        "memory_ratio": memory,
        "tflops": round(rate / 1e12, 3),
        "of_peak": round(rate / peak, 4) if peak else None,
        "weights_apart": apart,
    }


def profile(case: Case) -> dict[str, Any]:
    """Return shares of copying that kernels hide, and of time that kernels run."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    activity = ProfilerActivity.CUDA if on_cuda() else ProfilerActivity.CPU
    with profiling(activities=[activity]) as profiler:
        run_once(trainbus(), case)
    copies, kernels = [], []
    for event in profiler.events() or []:
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        span = (event.time_range.start, event.time_range.end)
        if "HtoD" in event.name:
            copies.append(span)
        elif not event.name.startswith(("Memcpy", "Memset")):
            kernels.append(span)
    copied, ran = union(copies), union(kernels)
    whole = ran[-1][1] - ran[0][0] if ran else 0.0
    return {
        "copies_us": round(length(copied)),
        "copies_hidden": round(common(copied, ran) / length(copied), 4)
        if copied
        else None,
        "kernels_run": round(length(ran) / whole, 4) if whole else None,
    }


def device_name() -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name() if on_cuda() else "cpu"


def show(name: str, figures: dict[str, Any]) -> str:
    """Return the table of a contest."""
    columns = (
        "ms_per_step",
        "samples_per_second",
        "ratio",
        "memory_ratio",
        "tflops",
        "of_peak",
        "weights_apart",
    )
    rows = [
        [who, row["skipped"], *[""] * (len(columns) - 1)]
        if "skipped" in row
        else [who, *(_cell(row[column]) for column in columns)]
        for who, row in figures.items()
    ]
    headings = ["ms/step", "samples/s", "x bare", "x memory", "TFLOP/s", "of peak"]
    return table([name, *headings, "apart"], rows)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def failures(results: dict[str, Any]) -> list[str]:
    """Return a sentence for each limit that is passed."""
    found = [
        f"waits in {name}: {what}"
        for name, what in results["waits"].items()
        if what != "none"
    ]
    for contest, figures in results["contests"].items():
        row = figures.get("trainbus", {"skipped": "not installed"})
        if "skipped" in row:
            found.append(f"{contest}: trainbus did not run: {row['skipped']}")
            continue
        if row["ratio"] > LIMIT_TIME:
            found.append(f"{contest}: ratio is {row['ratio']}, limit is {LIMIT_TIME}")
        if (row["memory_ratio"] or 0.0) > LIMIT_MEMORY:
            found.append(
                f"{contest}: memory is {row['memory_ratio']} x bare, "
                f"limit is {LIMIT_MEMORY}"
            )
    return found


def measure(smoke: bool, budget: float) -> dict[str, Any]:
    """Return everything, as far as the budget of seconds lasts."""
    deadline = time.monotonic() + budget
    tiny = build_model("toy" if smoke else "tiny")
    size, *steps = (2, 4, 4) if smoke else (16, 20, 200)
    small = Case(tiny, make_batches(tiny, size, 4), size, *steps)
    who = contestants(smoke)
    run_once(who["bare loop"], small)  # first-time costs, not counted
    with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
        waits = measure_waits(small, Path(folder))
    share = budget / 6  # of three contests, whose first rounds take as long again
    contests = {f"tiny, batch {size}": measure_contest(small, who, share, deadline)}
    base = build_model("toy" if smoke else "base")
    for batch_size in (2, 3) if smoke else (16, 64):
        batches = make_batches(base, batch_size, 4)
        case = Case(base, batches, batch_size, *((4, 4) if smoke else (8, 24)))
        contests[f"base, batch {batch_size}"] = measure_contest(
            case, who, share, deadline
        )
    profiled = profile(case) if time.monotonic() < deadline else None
    return {
        "device": device_name(),
        "waits": waits,
        "contests": contests,
        "profile": profiled,
    }


def main() -> int:
    """Measure and print; return 2 without CUDA, 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=420, help="seconds")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, also on a CPU")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    if not on_cuda() and not args.smoke:
        print("no CUDA device; --smoke rehearses at toy size")
        return 2
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)  # the CPU launches; it has nothing to compute
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    results = measure(args.smoke, args.budget)
    print(f"device: {results['device']}\n")
    waits = [list(row) for row in results["waits"].items()]
    print(table(["precision", "waits"], waits))
    for name, figures in results["contests"].items():
        print("\n" + show(name, figures))
    print("\nprofile:", results["profile"])
    if args.write and not args.smoke:
        print("written:", write("gpu", results))
    broken = failures(results) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
