"""What a step function returns beside its loss: means of epochs, and of validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from toy import Regression, SavesAt, make_trainer, regression_batches

from trainbus_early_stopping import EarlyStoppingCallback
from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Callback, MetricError, NonFiniteError, PluginError, Trainer
from training.hardware.readback import Readback

SIZES = (3, 1, 4, 2)


def batches() -> list[Any]:
    """Return batches of unequal sizes, each with rows of its own."""
    return [regression_batches(n + 1, size)[n] for n, size in enumerate(SIZES)]


def step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return a loss with its rows, and with a part of batches of one row only."""
    x, y = batch
    found: dict[str, Any] = {
        "loss": mse_loss(model.layers(x), y),  # type: ignore[operator]
        "weight": len(x),
        "first": x[:, 0].mean(),
        "rows": len(x),
    }
    return found | ({"rare": 7.0} if len(x) == 1 else {})


def expected(given: list[Any]) -> dict[str, float]:
    """Return the means over all rows, counted by hand."""
    rows = torch.cat([x for x, _ in given])
    sizes = [len(x) for x, _ in given]
    return {
        "first": float(rows[:, 0].mean()),
        "rows": sum(n * n for n in sizes) / sum(sizes),
        "rare": 7.0,
    }


def run(*callbacks: Any, **options: Any) -> Trainer:
    """Return a trainer of two epochs whose step has parts."""
    given = {"num_epochs": 2, "seed": 1, "step_fn": step, **options}
    return make_trainer(Regression(), batches(), *callbacks, **given)


def rows_of(trainer: Trainer) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_epochs_mean_of_a_part_is_that_of_all_items(accumulation: int) -> None:
    trainer = run(gradient_accumulation_steps=accumulation)
    trainer.train()
    for row in trainer.history:
        found = {name: row[f"train_{name}"] for name in ("first", "rows", "rare")}
        assert found == pytest.approx(expected(batches()))
    assert trainer.metrics["train_rows"].producer == "trainer"


def test_a_part_of_no_batch_of_an_epoch_has_no_mean() -> None:
    def once(model: nn.Module, batch: Any) -> dict[str, Any]:
        found = step(model, batch)
        calls.append(1)
        return found | ({"early": 1.0} if len(calls) <= len(SIZES) else {})

    calls: list[int] = []
    trainer = run(step_fn=once)
    trainer.train()
    assert ["train_early" in row for row in trainer.history] == [True, False]


def test_where_a_run_ends_inside_an_epoch_the_mean_is_of_what_was_trained() -> None:
    trainer = run(max_steps=6)
    trainer.train()
    last = trainer.history[-1]
    assert last["train_rows"] == expected(batches()[:2])["rows"]
    assert last["train_first"] == pytest.approx(expected(batches()[:2])["first"])


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 7])
def test_a_run_that_goes_on_has_the_means_of_one_that_was_not_stopped(
    at: int, tmp_path: Path
) -> None:
    whole = run(SavesAt(at, tmp_path / "a.pt"))
    whole.train()
    other = run()
    other.load_checkpoint(tmp_path / "a.pt")
    other.train()
    assert rows_of(other) == rows_of(whole)


def test_a_checkpoint_without_sums_of_parts_is_taken(tmp_path: Path) -> None:
    """One of a release that did not add them up: the epoch at hand lacks its begin."""
    whole = run(SavesAt(2, tmp_path / "a.pt"))
    whole.train()
    state = torch.load(tmp_path / "a.pt")
    assert state["progress"]["part_sums"].keys() == {"first", "rows", "rare"}
    progress = whole.state.progress
    progress.load_state_dict(
        {k: v for k, v in state["progress"].items() if k != "part_sums"}
    )
    assert progress.part_sums == {}


class Bad(Callback):
    """Spoils the gradient of one step."""

    def on_before_step(self, trainer: Trainer) -> None:
        if trainer.step == 1:
            next(iter(trainer.model.parameters())).grad.fill_(math.nan)  # type: ignore[union-attr]


def test_a_window_that_is_dropped_counts_for_no_mean() -> None:
    trainer = run(Bad(), nonfinite="skip", num_epochs=1)
    trainer.train()
    (row,) = trainer.history
    kept = [each for n, each in enumerate(batches()) if n != 1]
    assert row["train_rows"] == pytest.approx(expected(kept)["rows"])
    assert "train_rare" not in row


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a CPU be a device that is slow to answer."""
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda device: True)
    monkeypatch.setattr(Readback, "is_here", property(lambda self: False))


def told_late(*callbacks: Any) -> Trainer:
    """Return a trainer whose steps the host does not wait for."""
    trainer = run(*callbacks)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), 0.1, fused=True)
    return trainer


@pytest.mark.usefixtures("late")
def test_what_came_after_a_bad_value_that_was_told_late_counts_for_no_mean() -> None:
    class Seen(Callback):
        def __init__(self) -> None:
            self.sums: list[dict[str, Any]] = []

        def on_step_end(self, trainer: Trainer) -> None:
            found = trainer.state.progress.part_sums
            self.sums.append({name: (float(s), n) for name, (s, n) in found.items()})

    seen = Seen()
    trainer = told_late(Bad(), seen)
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert len(seen.sums) > 1  # the host was ahead
    assert trainer.state.progress.state_dict()["part_sums"] == {
        name: list(pair) for name, pair in seen.sums[0].items()
    }


@pytest.mark.usefixtures("late")
def test_means_that_are_read_at_the_end_are_those_read_at_once() -> None:
    trainer = told_late()
    trainer.train()
    for row in trainer.history:
        found = {name: row[f"train_{name}"] for name in ("first", "rows", "rare")}
        assert found == pytest.approx(expected(batches()))


def validated(evaluation: Any, val: Any = None, **options: Any) -> Trainer:
    """Return a trainer whose validation data are the training data."""
    given = batches() if val is None else val
    return run(evaluation, val_dataloader=given, **options)


def test_validation_means_parts_over_all_its_items() -> None:
    trainer = validated(EvaluationCallback())
    trainer.train()
    for row in trainer.history:
        found = {name: row[f"val_{name}"] for name in ("first", "rows", "rare")}
        assert found == pytest.approx(expected(batches()))


def test_parts_of_several_validation_sets_bear_their_names() -> None:
    val = {"all": batches(), "one": batches()[1:2]}
    trainer = validated(EvaluationCallback(), val)
    trainer.train()
    row = trainer.history[-1]
    assert row["val_rows/all"] == pytest.approx(expected(batches())["rows"])
    assert row["val_rows/one"] == 1.0


def test_an_evaluator_of_ones_own_step_returns_its_parts() -> None:
    evaluator = Evaluator(Regression(), step_fn=step)
    assert evaluator.metric_names(batches()) is None  # any may come
    found = evaluator.evaluate(batches())
    assert found.keys() == {"loss", "val_first", "val_rows", "val_rare"}
    assert found["val_rows"] == pytest.approx(expected(batches())["rows"])
    assert evaluator.metric_names(batches()) == tuple(found)


def watching(name: str, **options: Any) -> Any:
    return EarlyStoppingCallback(monitor=name, mode="max", patience=1, **options)


@pytest.mark.parametrize("name", ["train_rows", "val_rows"])
def test_a_mean_of_a_part_decides_as_any_metric(name: str) -> None:
    trainer = validated(EvaluationCallback(), num_epochs=9)
    trainer.bus.register(watching(name))
    trainer.train()
    assert trainer.epoch == 2  # it never gets better
    assert name in str(trainer.stop_reason)


def test_a_misspelt_part_of_validation_is_refused_before_training() -> None:
    trainer = validated(EvaluationCallback())
    trainer.bus.register(watching("val_row"))
    with pytest.raises(MetricError, match=r"watches 'val_row'.*did you mean 'val_row"):
        trainer.train()
    assert trainer.step == 0


def test_a_misspelt_part_of_training_is_refused_at_the_first_epochs_end() -> None:
    """Which parts there are only the step function tells."""
    trainer = validated(EvaluationCallback())
    trainer.bus.register(watching("train_row"))
    with pytest.raises(MetricError, match=r"watches 'train_row'.*train_rows"):
        trainer.train()
    assert trainer.epoch <= 1


def test_without_a_step_function_there_are_no_parts_to_wait_for() -> None:
    trainer = validated(EvaluationCallback(), step_fn=None)
    trainer.bus.register(watching("train_rows"))
    with pytest.raises(MetricError, match="watches 'train_rows'"):
        trainer.train()
    assert trainer.step == 0


def test_a_plugin_that_measures_what_a_part_is_called_is_named() -> None:
    class Own(Callback):
        name = "own"

        def evaluate(self) -> dict[str, float]:
            return {"train_rows": 1.0}

    with pytest.raises(PluginError, match="'train_rows' comes from both 'trainer' and"):
        run(Own()).train()
