"""The benchmarks can be run anywhere, and their arithmetic is right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripts find each other, as they do when one of them is run."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_its_benchmark_says_so_and_ends_with_2() -> None:
    run = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stdout.startswith("no CUDA device")


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")  # the script ignores them, too
def test_the_benchmark_of_a_gpu_can_be_rehearsed_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from gpu import Report, failures, measure

    report = Report(None)
    measure(True, 300, report, ["bare loop", "trainbus"])
    assert failures(report.results, ["trainbus"]) == []
    printed = capsys.readouterr().out
    parts = ["calls a step", "steps", "tiny, batch 2", "base, batch 2", "base, batch 3"]
    begins = [printed.index(f"\n\n{part}") for part in parts]
    assert begins == sorted(begins)
    for contest in report.results["contests"].values():
        assert contest["trainbus"]["weights_apart"] == 0.0
        assert contest["trainbus"]["rounds"] == 1


def test_a_part_of_the_gpu_benchmark_is_kept_at_once_and_costs_no_other_one() -> None:
    from gpu import Report, failures

    kept: list[dict[str, Any]] = []

    def fails() -> None:
        raise RuntimeError("no memory")

    report = Report(lambda results: kept.append(dict(results)))
    report.attempt("waits", lambda: report.add("text", waits={"bare loop": {}}))
    report.attempt("steps", fails)
    assert [sorted(each) for each in kept] == [
        ["contests", "device", "waits"],
        ["contests", "device", "steps failed", "waits"],
    ]
    assert failures(report.results) == ["steps failed: RuntimeError: no memory"]


def test_operations_are_counted_without_memory_as_on_a_cpu() -> None:
    from gpu_work import Case, build_model, flops_of, make_batches
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model("toy")
    batches = make_batches(model, 2, 1)
    with FlopCounterMode(display=False) as counter:
        model.train()(**batches[0]).loss.backward()
    counted = flops_of(Case(model, batches, 2, 1, 1))
    assert counted == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("calls", "number"),
    [
        pytest.param({"bf16": {"cudaMalloc": 0.55}}, 0, id="the profiler's own"),
        pytest.param({"bf16": {"cudaEventSynchronize": 1.0}}, 1, id="one a step"),
        pytest.param({"fp16, schedule a step": {"cudaMalloc": 1.5}}, 0, id="meant"),
        pytest.param({"fp16, schedule a step": {"cudaMalloc": 2.5}}, 1, id="and one"),
    ],
)
def test_a_wait_is_what_the_bare_loop_does_not_call(calls: Any, number: int) -> None:
    from gpu_checks import waits_more

    assert len(waits_more({"bare loop": {"cudaMalloc": 0.5}, **calls})) == number


@pytest.mark.parametrize(
    ("copies", "kernels", "hidden"),
    [
        pytest.param([(0, 4)], [(4, 9)], 0, id="one after the other"),
        pytest.param([(0, 4)], [(1, 3)], 2, id="kernels inside a copy"),
        pytest.param([(1, 3)], [(0, 4)], 2, id="a copy inside kernels"),
        pytest.param([(0, 2), (5, 7)], [(1, 6)], 2, id="over two copies"),
        pytest.param([(0, 2), (1, 3)], [(0, 9)], 3, id="copies that overlap"),
    ],
)
def test_a_copy_is_hidden_for_as_long_as_kernels_run_beside_it(
    copies: Any, kernels: Any, hidden: float
) -> None:
    from gpu_work import common, union

    assert common(union(copies), union(kernels)) == hidden


def test_the_picture_shows_every_contestant_and_its_measured_ratio() -> None:
    from picture import draw

    results = json.loads((FOLDER / "results" / "overhead.json").read_text())
    text = " ".join(ElementTree.fromstring(draw(results)).itertext())
    for contest in ("plain", "full"):
        for name, row in results[contest].items():
            assert name in text
            assert f"{row['ratio']:.2f} x" in text
    assert results["date"][:10] in text


def test_the_page_shows_the_overhead_as_last_measured() -> None:
    results = json.loads((FOLDER / "results" / "overhead.json").read_text())
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    short = results["short"]
    for name in results["plain"]:
        contests = (results["plain"], results["full"], short["plain"], short["full"])
        cells = [f"{each[name]['ratio']:.2f}" for each in contests]
        assert f"| {' | '.join([name, *cells])} |" in text
    guarded = short["plain"]["guarded loop"]["ratio"]
    assert f"| guarded loop | | | {guarded:.2f} | |" in text
    assert f"Measured on {results['date'][:10]}" in text


def test_a_short_step_is_held_to_limits_of_its_own() -> None:
    from overhead import failures

    def row(ratio: float) -> dict[str, Any]:
        return {"ratio": ratio, "weights_equal_bare": True}

    plain = {"trainbus": row(1.04), "guarded loop": row(1.2)}
    figures = {"plain": plain, "full": {"trainbus": row(1.07)}}
    assert failures(figures, "short") == []
    assert failures(figures) == ["plain: ratio is 1.04, limit is 1.02"]
    plain["guarded loop"] = row(1.0)
    assert failures(figures, "short") == ["over the guarded loop: 1.04, limit is 0.95"]


def test_what_a_batch_and_a_photo_cost_is_held_to_its_limits() -> None:
    from collate import failures

    batch = {"share": 0.1}
    photo = {"fresh_cpu_ms": 9.5, "kept_cpu_ms": 1.0, "sent_cpu_ms": 0.3}
    assert failures(batch, photo) == []
    assert failures({"share": 0.11}, photo) == ["batch over step: 0.11, limit is 0.1"]
    assert len(failures(batch, {name: ms * 1.1 for name, ms in photo.items()})) == 3


def test_a_worked_example_is_a_shipped_configuration() -> None:
    from vqa import LIMITS

    from training.app.config.shipped_configs import shipped_configs

    assert set(LIMITS) <= set(shipped_configs())


def test_a_promise_that_is_not_kept_is_told() -> None:
    from vqa import failures

    kept = {"exact_match": 0.95, "seconds": 120.0}
    assert failures("demo", kept) == []
    assert failures("demo", kept | {"exact_match": 0.94}) == [
        "exact_match is 0.940, promised >= 0.95"
    ]
    assert failures("demo", kept | {"seconds": 121.0}) == [
        "seconds is 121.000, promised <= 120"
    ]


def test_the_readme_has_each_script_and_the_days_of_the_results() -> None:
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    texts = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
    scripts = {name for name, text in texts.items() if "__main__" in text}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", told, re.M)) == scripts
    results = [json.loads(path.read_text()) for path in FOLDER.glob("results/*.json")]
    days = {result["date"].split()[0] for result in results}
    measured = told.partition("\nMeasured on ")[2].partition("\n\n")[0]
    assert set(re.findall(r"\d{4}-\d\d-\d\d", measured)) <= days
