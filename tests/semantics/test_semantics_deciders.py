"""Stopper, checkpointer and logs in one run: they agree on best, epoch and fresh."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy import Regression, make_trainer, regression_batches, weights_of

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_early_stopping import EarlyStoppingCallback
from trainbus_evaluation import EvaluationCallback
from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, MetricError, Trainer
from training.checkpoint_io import read_checkpoint

NAN = float("nan")


class Measures(Callback):
    """Delivers given values of val_loss, one a check; None: nothing."""

    def __init__(self, *values: float | None) -> None:
        self.values = values
        self.live: dict[int, list[Tensor]] = {}

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float] | None:
        self.live[trainer.step] = weights_of(trainer.model)
        value = self.values[trainer.epoch - 1]
        return None if value is None else {"val_loss": value}


def is_equal(model: torch.nn.Module, weights: list[Tensor]) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(weights_of(model), weights, strict=True)
    )


VALUES = st.one_of(
    st.sampled_from([1.0, 1.25, 2.0, 3.0, NAN, math.inf, -math.inf]),
    st.floats(-2, 2, width=16),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    values=st.lists(VALUES, min_size=1, max_size=6),
    mode=st.sampled_from(["min", "max"]),
    min_delta=st.sampled_from([0.0, 0.5]),
    top_k=st.integers(1, 3),
    best_only=st.booleans(),
)
@example(values=[1.0, 0.75, 2.0], mode="min", min_delta=0.5, top_k=1, best_only=True)
@example(
    values=[1.0, NAN, 0.5, 0.5], mode="min", min_delta=0.0, top_k=2, best_only=True
)
def test_stopper_and_checkpointer_name_the_same_best(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    mode: Any,
    min_delta: float,
    top_k: int,
    best_only: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    measures = Measures(*values)
    stopper = EarlyStoppingCallback(
        patience=99, mode=mode, min_delta=min_delta, restore_best_weights=True
    )
    keeper = ModelCheckpointCallback(
        folder, mode=mode, save_top_k=top_k, save_best_only=best_only
    )
    trainer = make_trainer(
        None, regression_batches(2), measures, stopper, keeper, num_epochs=len(values)
    )
    trainer.train()
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert stopper.best_step is None
        assert keeper.best_path is None
        assert trainer.weights_are == "live"
        return
    best = min(finite) if mode == "min" else max(finite)
    assert stopper.best_value == keeper.best_value == best
    assert stopper.best_step is not None
    saved = read_checkpoint(keeper.best_path or "")
    assert (
        saved["progress"]["step"] == stopper.best_step == 2 * (values.index(best) + 1)
    )
    assert trainer.weights_are == f"best@{stopper.best_step}"
    assert is_equal(trainer.model, measures.live[stopper.best_step])


def test_last_holds_live_weights_and_the_trainer_ends_with_the_best(
    tmp_path: Path,
) -> None:
    measures = Measures(1.0, 2.0, 3.0)
    keeper = ModelCheckpointCallback(tmp_path)
    trainer = make_trainer(
        None,
        regression_batches(2),
        measures,
        keeper,
        EarlyStoppingCallback(restore_best_weights=True),
        num_epochs=3,
    )
    trainer.train()
    last = read_checkpoint(keeper.last_path or "")
    assert last["progress"]["step"] == 6
    for name, weight in zip(trainer.model.state_dict(), measures.live[6], strict=True):
        assert torch.equal(last["model"][name], weight)
    assert is_equal(trainer.model, measures.live[2])


@pytest.mark.parametrize("is_touched", [False, True], ids=["as it was", "written to"])
def test_the_best_come_back_from_a_file_without_the_frozen_ones_if_those_are_as_then(
    tmp_path: Path, is_touched: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Touches(Callback):
        mutates = ("parameters",)

        def on_step_end(self, trainer: Trainer) -> None:
            if is_touched and trainer.step == 4:
                trainer.model.layers[3].bias.add_(1.0)  # after the best

    model = Regression()
    model.layers[3].bias.requires_grad_(False)
    measures = Measures(1.0, 2.0, 3.0)
    trainer = make_trainer(
        model,
        regression_batches(2),
        measures,
        Touches(),
        ModelCheckpointCallback(tmp_path, weights="trained"),
        EarlyStoppingCallback(restore_best_weights=True),
        num_epochs=3,
    )
    trainer.train()
    step = 6 if is_touched else 2
    assert trainer.weights_are == ("live" if is_touched else "best@2")
    assert is_equal(trainer.model, measures.live[step])
    assert ("what else the model has (1 weight) is not of" in caplog.text) == is_touched


def test_a_signal_leaves_live_weights_for_the_run_to_go_on_with() -> None:
    class Terminate(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            if trainer.epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    measures = Measures(1.0, 2.0, 3.0)
    trainer = make_trainer(
        None,
        regression_batches(2),
        measures,
        Terminate(),
        EarlyStoppingCallback(restore_best_weights=True),
        num_epochs=3,
    )
    with pytest.raises(SystemExit):
        trainer.train()
    assert trainer.weights_are == "live"
    assert is_equal(trainer.model, measures.live[4])


def test_no_stale_value_is_a_check_or_a_candidate(tmp_path: Path) -> None:
    """The value of epoch 1 is still there in epoch 2, and belongs to other weights."""
    stopper = EarlyStoppingCallback(patience=2)
    keeper = ModelCheckpointCallback(tmp_path, save_top_k=-1)
    trainer = make_trainer(
        None,
        regression_batches(2),
        Measures(1.0, None, None, 0.5, None),
        stopper,
        keeper,
        num_epochs=5,
    )
    trainer.train()
    assert trainer.metrics["val_loss"].step == 8
    assert trainer.metrics["val_loss"].producer == "Measures"
    assert (stopper.progress.checks, stopper.progress.wait) == (2, 0)
    entries = json.loads((tmp_path / "manifest.json").read_text())
    ranked = [e["step"] for e in entries["checkpoints"] if e["is_ranked"]]
    assert ranked == [2, 8]


def test_names_history_and_counters_agree_on_the_number_of_an_epoch(
    tmp_path: Path,
) -> None:
    keeper = ModelCheckpointCallback(
        tmp_path, monitor=None, save_best_only=False, save_top_k=-1
    )
    trainer = make_trainer(None, regression_batches(2), keeper, num_epochs=3)
    trainer.train()
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*.pt"))
    assert names == [f"checkpoint-{row['epoch']:03d}.pt" for row in trainer.history]
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3]


def test_patience_counts_checks_of_evaluations_by_steps() -> None:
    class Worse:
        def __init__(self) -> None:
            self.loss = 0.0

        def evaluate(self, dataloader: Any) -> dict[str, float]:
            self.loss += 1.0
            return {"loss": self.loss}

    data = regression_batches(4)
    trainer = make_trainer(
        None,
        data,
        EvaluationCallback(Worse(), every_n_steps=1),
        EarlyStoppingCallback(patience=2),
        val_dataloader=data,
        num_epochs=9,
    )
    trainer.train()
    assert (trainer.step, trainer.epoch) == (3, 0)
    assert trainer.stop_owner == "early_stopping"


@pytest.mark.parametrize(
    "consumer",
    [
        pytest.param(EarlyStoppingCallback(monitor="val_los"), id="stopper"),
        pytest.param(ModelCheckpointCallback(monitor="val_los"), id="checkpointer"),
    ],
)
@pytest.mark.parametrize("declares", [True, False])
def test_a_misspelt_metric_fails_as_soon_as_it_can_be_known(
    consumer: Any, declares: bool, tmp_path: Path
) -> None:
    """Before step 0, or at the first evaluation of a producer that names nothing."""

    class Silent(Callback):
        def evaluate(self) -> dict[str, float]:
            return {"val_loss": 1.0, "f1": 0.5}

    producer = Measures(1.0, 1.0) if declares else Silent()
    trainer = make_trainer(
        Regression(),
        regression_batches(2),
        producer,
        consumer,
        num_epochs=2,
        save_dir=tmp_path,
    )
    with pytest.raises(MetricError, match="did you mean 'val_loss'"):
        trainer.train()
    assert trainer.step == (0 if declares else 2)


@pytest.mark.parametrize("watcher", [EarlyStoppingCallback, ModelCheckpointCallback])
def test_a_metric_of_validation_data_without_any_is_told_to_need_it(
    watcher: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(None, regression_batches(2), watcher(), save_dir=tmp_path)
    with pytest.raises(MetricError, match=r"; pass validation data .*, or ") as told:
        trainer.train()
    assert "or monitor='train_loss'" in str(told.value)
    ranks_none = "monitor=None (null) ranks none" in str(told.value)
    assert ranks_none is (watcher is ModelCheckpointCallback)


def test_a_producer_that_was_not_due_is_waited_for() -> None:
    class EverySecond(Callback):
        def evaluate(self, trainer: Trainer) -> dict[str, float] | None:
            return {"val_loss": 1.0} if trainer.epoch % 2 == 0 else None

    stopper = EarlyStoppingCallback(patience=5)
    make_trainer(
        None, regression_batches(2), EverySecond(), stopper, num_epochs=4
    ).train()
    assert stopper.progress.checks == 2


@pytest.mark.parametrize("declares", [True, False])
@pytest.mark.parametrize(
    ("delivered", "epochs"),
    [
        pytest.param([{"accuracy": 1.0}], 1, id="from the start"),
        pytest.param([{"val_loss": 1.0}, {"accuracy": 1.0}], 2, id="later"),
    ],
)
@pytest.mark.parametrize(
    "consumer",
    [
        pytest.param(lambda folder: EarlyStoppingCallback(), id="early stopping"),
        pytest.param(ModelCheckpointCallback, id="checkpointing"),
    ],
)
def test_a_watched_metric_that_is_no_longer_delivered_ends_the_run(
    tmp_path: Path, consumer: Any, delivered: list[Any], epochs: int, declares: bool
) -> None:
    class Changes(Callback):
        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            return delivered[min(trainer.epoch, len(delivered)) - 1]

    class Declares(Changes):
        def metric_names(self) -> list[str]:
            return ["val_loss", "accuracy"]

    producer = Declares() if declares else Changes()
    trainer = make_trainer(
        None, regression_batches(2), producer, consumer(tmp_path), num_epochs=8
    )
    told = "watches 'val_loss', but this run reports: accuracy, train_loss"
    with pytest.raises(MetricError, match=told):
        trainer.train()
    assert trainer.step == 2 * epochs


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        pytest.param("train_loss", 2, id="what will come"),
        pytest.param("train_los", 1, id="what will not"),
    ],
)
def test_a_metric_that_is_watched_from_set_up_on_is_missed_when_it_does_not_come(
    name: str, epochs: int
) -> None:
    class Watches(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            trainer.require_metric(name, "watches.monitor")

    trainer = make_trainer(None, regression_batches(2), Watches(), num_epochs=2)
    if name == "train_loss":
        trainer.train()
    else:
        told = "'train_los', but this run reports: train_loss .did you mean"
        with pytest.raises(MetricError, match=told):
            trainer.train()
    assert trainer.step == 2 * epochs


class Accuracies(Callback):
    """Delivers a metric under any name."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def metric_names(self) -> list[str]:
        return [self.metric]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {self.metric: 0.5}


WATCHERS: dict[str, Any] = {
    "early_stopping": lambda **k: EarlyStoppingCallback(**k),
    "checkpointing": lambda **k: ModelCheckpointCallback(**k),
    "lr_scheduling": lambda **k: LearningRateSchedulerCallback(type="plateau", **k),
}
WORST = "with mode 'min', so that the smallest value counts as the best; set mode to"


@pytest.mark.parametrize("plugin", WATCHERS)
def test_a_metric_that_is_watched_the_wrong_way_is_warned_of(
    plugin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode, is_told in (
        ("val_accuracy", "min", True),
        ("f1/clean", "min", True),
        ("val_accuracy", "max", False),
        ("facts", "min", False),
        ("accuracy_loss", "min", False),
    ):
        caplog.clear()
        watcher = WATCHERS[plugin](monitor=name, mode=mode)
        trainer = make_trainer(
            None, regression_batches(2), Accuracies(name), watcher, save_dir=tmp_path
        )
        trainer.train()
        assert (f"{plugin}.monitor watches {name!r} {WORST}" in caplog.text) == is_told
