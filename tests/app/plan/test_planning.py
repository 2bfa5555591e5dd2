"""What plugins say of a planned run, and how it is put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import Bus, Callback, PluginError
from training.app.plan.planning import ask_for_plans, evaluated
from training.plugin import Plan, PlannedRun

#: Three epochs of four steps, the last one cut short.
RUN = PlannedRun(4, 3, 10, 1, Path("out"))


class Says(Callback):
    """Answers as it is told to."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, answer: Any = None) -> None:
        self.name, self.answer = name, answer  # type: ignore[misc]

    def plan(self) -> Any:
        return self.answer


class Measures(Callback):
    """Evaluates, and may say when and what."""

    hook_api = ">=1.1,<2"
    produces = ("val_loss",)

    def evaluate(self) -> dict[str, float]:
        return {}


class At(Measures):
    def plan_evaluations(self, run: PlannedRun) -> Any:
        return run.every(3)


class Secretive(Measures):
    produces = ()


def bus_of(*plugins: Any) -> Bus:
    bus = Bus()
    bus.register_all([(None, plugin) for plugin in plugins])
    return bus


def test_the_boundaries_of_a_run_are_these() -> None:
    assert [(at.reason, at.epoch, at.step) for at in RUN.boundaries([3])] == [
        ("step", 0, 3),
        ("epoch_end", 1, 4),
        ("epoch_end", 2, 8),
        ("stop", 2, 10),
    ]
    assert [at.is_stopping for at in RUN.boundaries()] == [False, False, True]


@pytest.mark.parametrize(
    ("plugins", "steps", "metrics"),
    [
        pytest.param([], [], [], id="nobody evaluates"),
        pytest.param([Measures()], [4, 8, 10], ["train_loss", "val_loss"], id="usual"),
        pytest.param([At()], [3, 6, 9], ["train_loss", "val_loss"], id="as it says"),
        pytest.param([At(), Secretive()], [3, 4, 6, 8, 9, 10], None, id="both"),
    ],
)
def test_evaluations_are_those_that_the_evaluators_name(
    plugins: list[Any], steps: list[int], metrics: list[str] | None
) -> None:
    run = evaluated(bus_of(*plugins), RUN)
    assert (run.evaluations, run.metrics) == (steps, metrics)


@pytest.mark.parametrize("answer", [5, ["x"], "abc"])
def test_evaluations_that_are_no_steps_are_refused(answer: Any) -> None:
    class Odd(Measures):
        name = "odd"

        def plan_evaluations(self) -> Any:
            return answer

    with pytest.raises(PluginError, match="plugin 'odd' returned"):
        evaluated(bus_of(Odd()), RUN)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("val_los", "x.monitor is 'val_los', but this run reports: train_loss, val_l"),
        ("val_loss/clean", None),
        ("train_loss", None),
    ],
)
def test_a_metric_that_nobody_delivers_is_a_conflict(
    metric: str, told: str | None
) -> None:
    conflicts = evaluated(bus_of(At()), RUN).metric_conflicts(metric, "x.monitor")
    assert [each.startswith(told or "") for each in conflicts] == [True] * bool(told)


def test_plans_come_in_the_order_of_the_configuration() -> None:
    one, two = Plan({"stop": ["later"]}), Plan(conflicts=["odd"])
    plugins = {"b": Says("b", one), "c": Says("c"), "a": Says("a", two)}
    run = PlannedRun(4, 3, None, 1, Path("out"), plugins=plugins)
    assert ask_for_plans(bus_of(*plugins.values()), run) == [one, two]


@pytest.mark.parametrize("answer", ["stop", {"stop": []}, []])
def test_an_answer_that_is_no_plan_is_refused(answer: Any) -> None:
    with pytest.raises(
        PluginError, match=r"plugin 'odd' returned .* from plan; return"
    ):
        ask_for_plans(bus_of(Says("odd", answer)), RUN)


LOADERS = """from training import Callback
class Counts(Callback):
    def wrap_dataloader(self, dataloader):
        return None
class Halves(Counts):
    alters_training = True
"""


def test_a_plan_says_who_may_replace_the_batches_that_it_counts(
    workplace: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (workplace / "own.py").write_text(LOADERS)
    both = ["-p", "./own.py:Halves", "-p", "./own.py:Counts"]
    _, out, _ = command("plan", "run.yaml", *both)
    told = "Halves may replace the batches, and change these numbers\n  evaluations"
    assert told in out
    assert "Counts" not in out


MIRROR = """
from pathlib import Path
from training import Callback
from training.plugin import Plan

class Mirror(Callback):
    name = "mirror"
    hook_api = ">=1.1,<2"

    def plan(self, run):
        there = run.save_dir / "mirror"
        lines = {"copied": [f"{run.total_steps} times"], "stop": ["mirror: when full"]}
        return Plan(lines, {there: "one a step"}, ["mirror fills the disk"])
"""


def test_a_third_partys_part_stands_in_the_plan(
    workplace: Path,
    command: Callable[..., tuple[int, str, str]],
    install: Callable[[str, str, str], Path],
) -> None:
    site = install("lab", "1.0", "mirror = lab_mirror:Mirror")
    (site / "lab_mirror.py").write_text(MIRROR)
    code, out, err = command("plan", "run.yaml", "-p", "mirror")
    assert (code, err) == (0, "")
    for line in (
        "  stop         mirror: when full\n",
        "out/mirror: one a step\n",
        "  copied       2 times\n",
        "conflicts\n  mirror fills the disk\n",
    ):
        assert line in out
