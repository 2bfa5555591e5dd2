"""What training costs on a CUDA device: waits, copies, throughput, memory.

Usage: python benchmarks/gpu.py [--budget 500] [--write] [--check]
       python benchmarks/gpu.py --smoke        # on a CPU: toy sizes, nothing is kept

One call measures, in this order and as long as the seconds of ``--budget`` last. Each
part is printed, and with ``--write`` kept, as soon as it is done; ``gpu.md`` says what
to expect.

- **waits**: calls of the CUDA runtime that wait, in 20 steps in each precision, with a
  progress bar that refreshes at every batch, a CSV log, checkpoints and a schedule,
  beside those of the bare loop.
- **steps**: dropout in replayed steps draws what it draws in eager ones; a fused SGD
  with momentum steps under fp16 as a plain one does.
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
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import leave_optional_off, table, write
from gpu_checks import CHECKS, measure_waits, waits_more
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

#: Dense bf16 operations a second, from the vendor's data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
#: The most time a step over that of the bare loop: contest -> who -> ratio. A few more
#: kernels are launched than in a bare loop, which guards against nothing.
LIMITS = {
    "tiny": {"trainbus": 1.03, "trainbus, graphs": 0.35},
    "base": {"trainbus": 1.02, "trainbus, graphs": 1.0},
}
#: The most peak memory over that of the bare loop, eagerly. Beside a model that is
#: hardly larger a batch more is much.
MEMORY_LIMITS = {"base": 1.01}
#: How often everybody runs, in turns, where there is time.
ROUNDS = 3


def run_once(contestant: Contestant, case: Case) -> dict[str, Any]:
    """Train once; return seconds a step, peak memory and the weights."""
    gc.collect()
    # Else a second batch size of one code object is compiled for any.
    torch._dynamo.reset()
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
    flops, began = flops_of(case), time.monotonic()
    skipped: dict[str, str] = {}
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


def failures(results: dict[str, Any], who: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each limit that is passed.

    Args:
        results: of ``measure``.
        who: has to be there; nobody named: all that have limits.
    """
    found = [f"{k}: {said}" for k, said in results.items() if k.endswith(" failed")]
    found += waits_more(results["waits"]) if "waits" in results else []
    steps = results.get("steps", {})
    found += [f"{name}: {said}" for name, said in steps.items() if said != "same"]
    for contest, figures in results["contests"].items():
        size = contest.partition(",")[0]
        for name, limit in LIMITS[size].items():
            row = figures.get(name, {"skipped": "not chosen"})
            if who and name not in who:
                continue
            if "skipped" in row:
                found.append(f"{contest}: {name} did not run: {row['skipped']}")
            elif on_cuda() and row["ratio"] > limit:  # a rehearsal has no time
                found.append(
                    f"{contest}: {name} is {row['ratio']} x bare, limit is {limit}"
                )
        memory = figures.get("trainbus", {}).get("memory_ratio") or 0.0
        if size in MEMORY_LIMITS and memory > (limit := MEMORY_LIMITS[size]):
            found.append(f"{contest}: memory is {memory} x bare, limit is {limit}")
    return found


class Report:
    """Figures as they come: each part is printed, and kept, when it is there.

    Args:
        keep: is handed all results so far after each part; None: nothing is kept.
    """

    def __init__(self, keep: Callable[[dict[str, Any]], Any] | None) -> None:
        self.results: dict[str, Any] = {"device": device_name(), "contests": {}}
        self._keep = keep
        print(f"device: {device_name()}", flush=True)

    def add(self, text: str, **part: Any) -> None:
        """Print ``text``, and add ``part`` to the results."""
        self.results |= part
        print("\n" + text, flush=True)
        if self._keep is not None:
            self._keep(self.results)

    def attempt(self, name: str, part: Callable[[], None]) -> None:
        """Do a part; an error of it costs no other."""
        try:
            part()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:300]
            self.add(f"{name} failed: {said}", **{f"{name} failed": said})


def measure(
    smoke: bool, budget: float, report: Report, chosen: Sequence[str] = ()
) -> None:
    """Measure everything, as far as the budget of seconds lasts.

    Args:
        smoke: at toy size, one round of each contest.
        budget: that.
        report: is told of each part when it is done.
        chosen: contestants, the bare loop first; none: all.
    """
    deadline = time.monotonic() + budget
    tiny = build_model("toy" if smoke else "tiny")
    size, *steps = (2, 1, 2) if smoke else (16, 20, 200)
    small = Case(tiny, make_batches(tiny, size, 4), size, *steps)
    everybody = contestants(smoke)
    who = {name: everybody[name] for name in chosen or everybody}
    run_once(who["bare loop"], small)  # first-time costs, not counted

    def waits() -> None:
        with tempfile.TemporaryDirectory(prefix="trainbus-bench-") as folder:
            found = measure_waits(small, Path(folder))
        names = list(found["bare loop"])
        rows = [[n, *(f"{found[n][each]:.2f}" for each in names)] for n in found]
        report.add(table(["calls a step", *names], rows), waits=found)

    def same() -> None:
        found = {name: check() for name, check in CHECKS.items()}
        rows = [list(row) for row in found.items()]
        report.add(table(["steps", ""], rows), steps=found)

    # Of a rehearsal one round is as good as three.
    share = (
        0.0 if smoke else budget / 6
    )  # of three contests, whose first rounds take as long again

    def contest(name: str, case: Case) -> None:
        figures = measure_contest(case, who, share, deadline)
        contests = report.results["contests"] | {name: figures}
        report.add(show(name, figures), contests=contests)

    report.attempt("waits", waits)
    report.attempt("steps", same)
    report.attempt("tiny", lambda: contest(f"tiny, batch {size}", small))
    base = build_model("toy" if smoke else "base")
    for batch_size in (2, 3) if smoke else (16, 64):
        batches = make_batches(base, batch_size, 4)
        case = Case(base, batches, batch_size, *((1, 2) if smoke else (8, 24)))
        name = f"base, batch {batch_size}"
        report.attempt(name, lambda name=name, case=case: contest(name, case))
        if time.monotonic() < deadline:
            report.attempt("profile", lambda case=case: _profiled(report, case))


def _profiled(report: Report, case: Case) -> None:
    found, name = profile(case), f"batch {case.batch_size}"
    profiles = report.results.get("profile", {}) | {name: found}
    report.add(f"profile, {name}: {found}", profile=profiles)


def main() -> int:
    """Measure and print; return 2 without CUDA, 1 when --check finds a limit passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=420, help="seconds")
    parser.add_argument("--smoke", action="store_true", help="toy sizes, also on a CPU")
    parser.add_argument("--who", nargs="*", default=[], help="contestants; all")
    parser.add_argument("--write", action="store_true", help="keep the figures as JSON")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    args = parser.parse_args()
    if not on_cuda() and not args.smoke:
        print("no CUDA device; --smoke rehearses at toy size")
        return 2
    leave_optional_off()
    torch.set_num_threads(1)  # the CPU launches; it has nothing to compute
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    keeps = args.write and not args.smoke
    report = Report((lambda results: write("gpu", results)) if keeps else None)
    measure(args.smoke, args.budget, report, args.who)
    broken = failures(report.results, args.who) if args.check else []
    for sentence in broken:
        print("failed:", sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
