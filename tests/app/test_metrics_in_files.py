"""Metrics of one's own that a configuration names: ``./file.py:NAME``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., tuple[int, str, str]]

OWN = """\
import functools

limit = 3


def shortness(predictions, targets):
    assert all(isinstance(each, str) for each in predictions)
    return sum(map(len, targets)) / len(predictions)


def right_first(y_true, y_pred):
    return 0.0


class Seen:
    name = "seen"

    def reset(self):
        self.rows = 0

    def update(self, predictions, targets):
        self.rows += len(targets)

    def compute(self):
        return self.rows


class Weighed(Seen):
    def __init__(self, weight):
        self.weight = weight


class Nothing:
    pass


class Half:
    def update(self, predictions, targets): ...


whole = int  # whose signature is in no reach
nameless = lambda predictions, targets: 0.0
"""
LISTED = "[exact_match, ./own.py:shortness, ./own.py:Seen]"
SHORTNESS = (3 + 5 + 4 + 5) / 4


@pytest.fixture(autouse=True)
def own(workplace: Path) -> None:
    Path("own.py").write_text(OWN)


def listing(metrics: str) -> list[str]:
    return ["--set", f"plugins.evaluation.metrics={metrics}"]


def recorded() -> dict[str, Any]:
    rows = json.loads(Path("out/history.json").read_text())
    return dict(rows[-1])


MONITORED = ("--set", "plugins.checkpointing.monitor=shortness")


def test_they_are_measured_monitored_and_recorded_as_text(command: Command) -> None:
    code, out, err = command("run", "run.yaml", *listing(LISTED), *MONITORED)
    assert (code, "shortness" in out) == (0, True), err
    row = recorded()
    assert (row["shortness"], row["seen"]) == (SHORTNESS, 4)
    assert {"exact_match", "val_loss"} <= row.keys()
    assert "accuracy" not in row
    summary = json.loads(Path("out/summary.json").read_text())
    assert {"monitor": "shortness", "value": SHORTNESS}.items() <= summary["best"][
        0
    ].items()
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    (options,) = [
        each["evaluation"] for each in config["plugins"] if "evaluation" in each
    ]
    assert options["metrics"] == ["exact_match", "./own.py:shortness", "./own.py:Seen"]


def test_evaluate_measures_them_too(command: Command) -> None:
    assert command("run", "run.yaml", *listing(LISTED), *MONITORED)[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    code, out, err = command("evaluate", "out/config.yaml", "--checkpoint", saved)
    assert code == 0, err
    told = dict(line.split()[:2] for line in out.splitlines() if len(line.split()) > 1)
    assert (float(told["shortness"]), float(told["seen"])) == (SHORTNESS, 4)


def test_a_saved_configuration_says_where_its_relative_paths_begin(
    command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", "run.yaml", *listing(LISTED), *MONITORED)[0] == 0
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    saved = Path("../out/config.yaml")
    code, _, err = command("plan", str(saved))
    assert (code, "'./own.py' does not exist" in err) == (2, True), err
    assert "work where it lies, or write the whole path" in err
    (told,) = [each for each in saved.read_text().splitlines() if "begin in" in each]
    monkeypatch.chdir(told.partition("begin in ")[2])
    code, out, err = command("plan", "out/config.yaml")
    assert code == 0, out + err


def test_a_plan_knows_their_names(command: Command) -> None:
    code, out, err = command("plan", "run.yaml", *listing(LISTED), *MONITORED)
    assert code == 0, out + err
    given = *listing(LISTED), "--set", "plugins.checkpointing.monitor=shortnes"
    _, out, _ = command("plan", "run.yaml", *given)
    assert "reports: train_loss, val_loss, exact_match, shortness, seen (did" in out


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("./own.py:shortnes", "has no function or class 'shortnes' (did you mean 'sh"),
        ("./gone.py:r2", "metrics: file './gone.py' does not exist"),
        ("./own.py", "'./own.py', which is a file; name a function or a class in it"),
        ("./own.py:limit", "'./own.py:limit', but that is int; name a function"),
        (
            "./own.py:Nothing",
            "is a class without update, compute, reset; name a function",
        ),
        ("./own.py:Half", "but that is a class without compute, reset; name a"),
        (
            "./own.py:whole",
            "is a class without update, compute, reset; name a function",
        ),
        ("./own.py:nameless", "'./own.py:nameless', which has no name to be delivered"),
        ("./own.py:Weighed", "whose constructor needs arguments; let it do without"),
        ("./own.py:right_first", "takes 'y_true' first, but is called with"),
        ("./own.py:functools", "but that is module; name a function"),
        ("exact_mach", "has 'exact_mach' (did you mean 'exact_match'?); with the task"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "check", "run"])
def test_what_cannot_measure_is_refused_before_a_model_exists(
    metric: str, told: str, verb: str, command: Command
) -> None:
    code, _, err = command(verb, "run.yaml", *listing(f"[loss, {metric}]"))
    assert (code, told in err) == (2, True), err
    errors = [line for line in err.splitlines() if line.startswith("trainbus: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in err
    assert not Path("out").exists()


MEASURES = """\
from training import Callback


class Measures(Callback):
    chooses_metrics = {"metrics": ("loss",)}

    def __init__(self, metrics: list[str]) -> None:
        self.metrics = metrics

    def evaluate(self):
        return {}
"""


def test_a_plugin_that_loads_no_metric_is_given_none(command: Command) -> None:
    Path("measures.py").write_text(MEASURES)
    plugin = "plugins=[{./measures.py:Measures: {metrics: [loss, ./own.py:shortness]}}]"
    code, _, err = command("run", "run.yaml", "--set", plugin)
    assert (code, "has './own.py:shortness'" in err) == (2, True), err
    assert "of your own" not in err
    assert not Path("out").exists()


def test_a_file_that_raises_shows_its_own_error(command: Command) -> None:
    Path("own.py").write_text("import gone_for_good\n")
    code, _, err = command("plan", "run.yaml", *listing("[./own.py:r2]"))
    assert (code, "Traceback" in err) == (2, True)
    assert "metrics: file './own.py' cannot be imported: ModuleNotFoundError" in err


def test_a_class_that_cannot_be_made_is_named_with_its_error(command: Command) -> None:
    made = "class Table(dict):\n    update = compute = reset = print\n"
    Path("own.py").write_text(made + "    def __init__(self):\n        self['a']\n")
    code, _, err = command("plan", "run.yaml", *listing("[./own.py:Table]"))
    assert code != 0
    assert "KeyError: 'a'" in err
    assert "in the metric './own.py:Table' of your own" in err


def test_what_is_no_number_costs_no_step(command: Command) -> None:
    Path("own.py").write_text("def r2(predictions, targets):\n    return 'much'\n")
    code, _, err = command("run", "run.yaml", *listing("[./own.py:r2]"))
    assert code == 2
    assert "the metric 'r2' returned 'much'; return a number" in err
    assert not Path("out/history.json").exists()
