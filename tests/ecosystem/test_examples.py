"""Third-party plugins: installed from a wheel, enabled by configuration, used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CALLBACKS = ("ema", "event_stream", "grad_noise")
NAMES = (*CALLBACKS, "text_classification", "vilt")

pytestmark = pytest.mark.slow


def test_every_example_is_tested() -> None:
    assert sorted(p.parent.name for p in EXAMPLES.glob("*/setup.cfg")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_its_own_tests_when_installed(
    name: str, environment, wheel_of, tmp_path: Path
) -> None:
    environment.install(wheel_of(EXAMPLES / name))
    tests = EXAMPLES / name / "tests"
    tested = environment.run(
        *("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-c", "/dev/null"),
        *("--rootdir", tmp_path, tests),
    )
    assert tested.returncode == 0, tested.stdout


def test_the_callbacks_take_part_in_a_run_that_lists_them(
    environment, wheel_of, small_config, tmp_path: Path
) -> None:
    environment.install(*(wheel_of(EXAMPLES / name) for name in CALLBACKS))
    listed = environment.run("trainbus", "plugins", "list", "--json")
    states = {each["name"]: each["state"] for each in json.loads(listed.stdout)}
    assert {states[name] for name in CALLBACKS} == {"off"}
    config = small_config(
        plugins=[
            "csv",
            "evaluation",
            {"checkpointing": {"monitor": "grad_norm"}},
            {"ema": {"decay": 0.9}},
            "grad_noise",
            {"event_stream": {"every_n_steps": 1}},
        ],
        requires=["trainbus-ema>=0.1,<1"],
    )
    run = environment.run("trainbus", "run", config, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    events = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in events]
    assert rows[-2]["event"] == "train_end"
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert {"grad_norm", "grad_noise", "val_loss"} <= history[-1].keys()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["plugins"]["ema"]["distribution"] == "trainbus-ema"
