"""Third-party plugins: installed from a wheel, enabled by configuration, used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CALLBACKS = ("ema", "event_stream", "grad_noise")
NAMES = (*CALLBACKS, "text_classification", "vilt", "wandb")

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


TEXTS = {"good": ["a lovely film", "lovely"], "bad": ["a dull story", "awful and dull"]}


def test_a_task_with_its_family_runs_from_a_configuration(
    environment, wheel_of, tmp_path: Path
) -> None:
    environment.install(wheel_of(EXAMPLES / "text_classification"))
    rows = [{"text": t, "label": n} for n, texts in TEXTS.items() for t in texts * 4]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    config = {
        "task": "text_classification",
        "data": {"train": "rows.jsonl", "validation": "rows.jsonl", "batch_size": 8},
        "model": {"build": {"hidden_size": 32}},
        "training": {"num_epochs": 20, "device": "cpu", "save_dir": "out"},
    }
    config["training"]["optimizer"] = {"type": "adamw", "lr": 3e-3}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    run = environment.run("trainbus", "run", "config.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history[-1]["accuracy"] == 1.0
    *_, checkpoint = sorted((tmp_path / "out" / "checkpoints").glob("*.pt"))
    said = environment.run(
        *("trainbus", "predict", "--checkpoint", checkpoint),
        *("--field", "text=a lovely story"),
        cwd=tmp_path,
    )
    assert said.stdout == "good\n", said.stderr
    for command in ("check", "verify-resume"):
        proved = environment.run("trainbus", command, "config.yaml", cwd=tmp_path)
        assert proved.returncode == 0, proved.stderr


def test_a_family_of_somebody_else_does_a_task_of_ours(
    environment, wheel_of, tmp_path: Path
) -> None:
    environment.install(wheel_of(EXAMPLES / "vilt"))
    config = {
        "task": "vqa",
        "data": {"synthetic": {"num_train_images": 12, "num_validation_images": 4}},
        "model": {"type": "vilt", "build": {"hidden_size": 32}},
        "training": {"num_epochs": 1, "device": "cpu", "save_dir": "out"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    run = environment.run("trainbus", "run", "config.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("checkpoint*.pt")
    image = next((tmp_path / "out" / "pictures").glob("*/val/images/*.png"))
    said = environment.run(
        *("trainbus", "predict", "--checkpoint", checkpoint),
        *("--image", image, "--question", "what color is the shape?"),
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()
