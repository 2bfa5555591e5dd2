"""The plan is what happens: counted by one function, and equal to real runs."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Recorder, make_trainer, regression_batches

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_checkpointing.plan import rehearse
from trainbus_evaluation import EvaluationCallback
from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Bus, Callback, Trainer
from training.app.plan.planning import evaluated
from training.planned.length import RunLength
from training.plugin import PlannedRun

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for pattern in ("core/**/*.py", "plugins/*/src/**/*.py", "data/**/*.py")
    for path in ROOT.glob(pattern)
)
#: What a step count could be computed from.
INGREDIENTS = ("accumulation", "batches_per_epoch", "num_batches", "len(loader")
#: A share (``/``) is no count.
DIVISIONS = (ast.FloorDiv, ast.Mod)


def is_step_count(node: ast.AST) -> bool:
    """Whether ``node`` divides batches by windows, in whatever way."""
    is_division = isinstance(node, ast.BinOp) and isinstance(node.op, DIVISIONS)
    is_call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("ceil", "divmod")
    )
    text = ast.unparse(node)
    return (is_division or is_call) and any(word in text for word in INGREDIENTS)


def step_counts(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [ast.unparse(node) for node in ast.walk(tree) if is_step_count(node)]


def test_nobody_but_the_plan_counts_the_steps_of_an_epoch() -> None:
    found = {path.name: step_counts(path) for path in SOURCES if step_counts(path)}
    assert set(found) == {"length.py"}


def test_the_rule_would_notice() -> None:
    for text in ("math.ceil(len(loader) / n)", "-(-batches_per_epoch // k)"):
        assert any(is_step_count(node) for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize(
    ("batches", "accumulation", "steps", "last"),
    [(5, 4, 2, 1), (8, 4, 2, 4), (3, 4, 1, 3), (1, 1, 1, 1)],
)
def test_an_epoch_has_a_step_for_each_window_begun(
    batches: int, accumulation: int, steps: int, last: int
) -> None:
    length = RunLength(batches, num_epochs=2, accumulation=accumulation)
    assert (length.steps_per_epoch, length.last_window) == (steps, last)


def test_a_loader_without_a_length_has_as_many_steps_as_max_steps() -> None:
    length = RunLength(None, num_epochs=2, accumulation=3, max_steps=7)
    assert (length.steps_per_epoch, length.total_steps) == (None, 7)
    assert [length.is_over(1, 6), length.is_over(1, 7), length.is_over(2, 6)] == [
        *(False, True, True)
    ]


class Scripted:
    """An evaluator whose loss falls, or rises, at each call."""

    def __init__(self, improves: bool) -> None:
        self.change, self.loss = (-1.0 if improves else 1.0), 0.0

    def metric_names(self, dataloader: Any) -> list[str]:
        return ["loss"]

    def evaluate(self, dataloader: Any) -> dict[str, float]:
        self.loss += self.change
        return {"loss": self.loss}


class Notes(Callback):
    """Notes the steps that delivered a value, and every file that was there."""

    after = ("checkpointing",)

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder, self.monitor = folder, monitor
        self.checks: list[int] = []
        self.seen: set[str] = set()

    def on_metrics(self, trainer: Trainer, metrics: Any) -> None:
        if self.monitor in metrics:
            self.checks.append(trainer.step)

    def on_checkpoint(self) -> None:
        self.seen |= {path.name for path in self.folder.glob("*.pt")}


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4)),
    max_steps=st.none() | st.integers(1, 12),
    every=st.tuples(st.integers(0, 3), st.none() | st.integers(1, 4)),
    saves=st.fixed_dictionaries(
        {
            "save_best_only": st.booleans(),
            "save_frequency": st.integers(1, 3),
            "save_top_k": st.integers(-1, 3),
            "frequency_applies_to_best": st.booleans(),
            "save_last": st.booleans(),
            "every_n_steps": st.none() | st.integers(1, 4),
            "monitor": st.sampled_from(["val_loss", None]),
        }
    ),
    improves=st.booleans(),
)
def test_what_is_planned_is_what_happens(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    max_steps: int | None,
    every: tuple[int, int | None],
    saves: dict[str, Any],
    improves: bool,
) -> None:
    batches, accumulation, num_epochs = shape
    folder = tmp_path_factory.mktemp("run")
    evaluation = EvaluationCallback(Scripted(improves), None, *every)
    keeper = ModelCheckpointCallback(folder, **saves)
    bus = Bus()
    bus.register_all([(None, evaluation), (None, keeper)])
    run = evaluated(
        bus, PlannedRun(batches, num_epochs, max_steps, accumulation, folder)
    )
    checks = [at.step for at in run.checks("val_loss")]
    expected = rehearse(run, keeper.cadence, keeper.ranking, improves)
    data = regression_batches(batches)
    notes = Notes(folder, "val_loss")
    trainer = make_trainer(
        None,
        data,
        evaluation,
        keeper,
        notes,
        val_dataloader=data,
        num_epochs=num_epochs,
        max_steps=max_steps,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    assert (trainer.total_steps, trainer.step) == (run.total_steps, run.total_steps)
    assert notes.checks == checks
    last = {name for name in notes.seen if name.startswith("last-")}
    ranked, left = notes.seen - last, len(list(folder.glob("*.pt")))
    assert (len(ranked), len(last)) == (expected.num_ranked, expected.num_last)
    assert left == len(notes.seen) - expected.num_deleted


def test_the_loop_and_its_view_agree_on_a_loader_that_ends_ragged() -> None:
    recorder = Recorder()
    trainer = make_trainer(
        None,
        regression_batches(7),
        recorder,
        gradient_accumulation_steps=3,
        num_epochs=2,
    )
    trainer.train()
    assert trainer.steps_per_epoch == 3
    assert len(recorder.logs) == trainer.total_steps == trainer.step == 6


def test_a_wrapped_loader_is_the_one_that_is_counted() -> None:
    class Halves(Callback):
        def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
            return dataloader[: len(dataloader) // 2]

    recorder = Recorder()
    trainer = make_trainer(None, regression_batches(8), Halves(), recorder)
    trainer.bus.register(LearningRateSchedulerCallback(type="linear"))
    for _ in range(2):  # wrapped once a run, and not again on top
        trainer.train()
        assert (trainer.total_steps, trainer.step) == (4, 4)
    rates = [logs["lr"] for logs in recorder.logs[-4:]]
    assert rates[-1] == pytest.approx(rates[0] / 4)
