"""What early stopping promises, as a table of claims."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainbus_early_stopping import EarlyStoppingCallback, improved
from training import CheckpointError, ConfigError, MetricError

from .fakes import FakeTrainer, begun, resumed

NAN, INF = float("nan"), float("inf")


def stops_after(values: list[float], **options: Any) -> int | None:
    stopper, trainer = begun(**options)
    for index, value in enumerate(values, start=1):
        trainer.run_epoch(stopper, val_loss=value)
        if trainer.stop_reason is not None:
            return index
    return None


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        pytest.param(
            [3.0, 2.0, 2.0, 2.0], {"patience": 2}, 4, id="two flat checks use it up"
        ),
        pytest.param(
            [3.0, 2.0, 2.5, 1.0], {"patience": 2}, None, id="a gain resets the count"
        ),
        pytest.param([3.0, 3.0], {"patience": 1}, 2, id="equal is no improvement"),
        pytest.param([3.0, 3.0], {"patience": 0}, 2, id="zero stops at the first miss"),
        pytest.param(
            [3.0, 2.0, 1.0], {"patience": 0}, None, id="zero lets a steady gain run"
        ),
        pytest.param(
            [-1.0, -1.5, -2.0],
            {"patience": 1},
            None,
            id="negative losses improve downwards",
        ),
        pytest.param(
            [-1.0, -1.05],
            {"patience": 1, "mode": "max"},
            2,
            id="a lower negative score is no gain in mode max",
        ),
        pytest.param(
            [0.1, 0.2, 0.1, 0.1], {"patience": 2, "mode": "max"}, 4, id="mode max"
        ),
        pytest.param(
            [1.0, 0.999],
            {"patience": 1, "min_delta": 0.001},
            2,
            id="a gain of exactly min_delta is none, in spite of rounding",
        ),
        pytest.param(
            [1.0, 0.75],
            {"patience": 1, "min_delta": 0.25},
            2,
            id="a gain of exactly min_delta is none, where floats are exact",
        ),
        pytest.param(
            [1.0, 0.94, 0.88, 0.82, 0.76],
            {"patience": 2, "min_delta": 0.1},
            None,
            id="small gains add up: the reference is the last that counted",
        ),
        pytest.param([1.0, NAN, NAN], {"patience": 2}, 3, id="NaN counts as a miss"),
        pytest.param(
            [NAN, 2.0, 1.0, 0.5], {"patience": 2}, None, id="NaN first does not block"
        ),
        pytest.param(
            [2.0, NAN, 2.5], {"patience": 2}, 3, id="NaN does not become the reference"
        ),
        pytest.param(
            [2.0, -INF, 2.5], {"patience": 2}, 3, id="-inf is no improvement either"
        ),
        pytest.param(
            [0.1, INF, 0.05],
            {"patience": 2, "mode": "max"},
            3,
            id="+inf is none in mode max",
        ),
        pytest.param(
            [2.0, NAN],
            {"patience": 9, "on_nonfinite": "stop"},
            2,
            id="on_nonfinite='stop' stops at once",
        ),
        pytest.param(
            [1.0, 2.0, 2.0, 2.0, 2.0],
            {"patience": 1, "min_epochs": 4},
            4,
            id="min_epochs delays the stop",
        ),
        pytest.param(
            [1.0, 2.0, 2.0, 0.5],
            {"patience": 1, "min_epochs": 4},
            None,
            id="a stop that min_epochs delayed is withdrawn by a gain",
        ),
        pytest.param(
            [1.0, 2.0, 2.0, 2.0],
            {"patience": 1, "min_steps": 6},
            3,
            id="min_steps counts steps",
        ),
    ],
)
def test_it_stops_after(values, options, expected):
    assert stops_after(values, **options) == expected


@pytest.mark.parametrize(
    ("value", "best", "mode", "claim"),
    [
        pytest.param(1.0, 2.0, "min", True, id="less is better in min"),
        pytest.param(2.0, 1.0, "max", True, id="more is better in max"),
        pytest.param(2.0, 2.0, "min", False, id="equal is not"),
        pytest.param(NAN, 2.0, "min", False, id="NaN is not"),
        pytest.param(math.nextafter(2, 1), 2.0, "min", True, id="one ulp is"),
    ],
)
def test_without_min_delta_any_gain_is_an_improvement(value, best, mode, claim):
    assert improved(value, best, mode, 0.0) is claim


def test_a_check_is_counted_only_when_the_metric_is_fresh():
    stopper, trainer = begun(patience=2)
    trainer.run_epoch(stopper, val_loss=1.0)
    for _ in range(5):
        trainer.run_epoch(stopper)  # nobody measured val_loss
    trainer.run_epoch(stopper, val_loss=2.0)
    assert (stopper.progress.checks, stopper.progress.wait) == (2, 1)
    assert trainer.stop_reason is None


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        pytest.param(
            [0.5, 0.4213, 0.421, 0.4214, 0.43],
            {"patience": 3, "min_delta": 0.001},
            "val_loss has not improved by more than 0.001 for 3 checks "
            "(best 0.421 at epoch 3)",
            id="with min_delta",
        ),
        pytest.param(
            [0.5, 0.6],
            {"patience": 1},
            "val_loss has not improved for 1 check (best 0.5 at epoch 1)",
            id="one check",
        ),
        pytest.param(
            [NAN, NAN],
            {"patience": 2},
            "val_loss has not been finite for 2 checks",
            id="nothing finite",
        ),
    ],
)
def test_the_stop_says_why(values, options, reason):
    stopper, trainer = begun(**options)
    for value in values:
        trainer.run_epoch(stopper, val_loss=value)
    assert trainer.stop_reason == reason


def test_a_nonfinite_value_is_warned_about_and_counted(caplog):
    stopper, trainer = begun()
    trainer.run_epoch(stopper, val_loss=NAN)
    assert "val_loss is nan at step 2" in caplog.text
    assert stopper.progress.nonfinite_checks == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"patience": -1}, "patience is -1", id="negative patience"),
        pytest.param({"patience": 2.5}, "patience is 2.5", id="fractional patience"),
        pytest.param({"patience": True}, "patience is true", id="a bool for a count"),
        pytest.param({"min_delta": -0.1}, "min_delta is -0.1", id="negative min_delta"),
        pytest.param(
            {"min_delta": NAN},
            "min_delta is nan, but must be a finite number",
            id="NaN min_delta",
        ),
        pytest.param({"mode": "auto"}, "be one of: 'min', 'max'", id="unknown mode"),
        pytest.param(
            {"monitor": ""}, "must be at least 1 character", id="empty monitor"
        ),
        pytest.param(
            {"on_nonfinite": "raise"}, "'ignore', 'stop'", id="unknown policy"
        ),
        pytest.param({"min_epochs": -1}, "min_epochs is -1", id="negative min_epochs"),
        pytest.param(
            {"persist_best": "no"}, "'path', 'weights'", id="unknown persistence"
        ),
    ],
)
def test_the_constructor_refuses(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        EarlyStoppingCallback(**options)
    assert str(caught.value).startswith("early_stopping.")


def test_a_metric_that_nobody_produces_is_refused_before_step_0():
    with pytest.raises(MetricError, match=r"early_stopping\.monitor watches 'val_los'"):
        begun(monitor="val_los")


def test_a_metric_that_never_came_is_warned_about_at_the_end(caplog):
    stopper, trainer = begun(monitor="accuracy")
    trainer.run_epoch(stopper, val_loss=1.0)
    stopper.on_train_end(trainer)
    assert "'accuracy' was never measured" in caplog.text


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_resumed_run_equals_an_uninterrupted_one(cut):
    values = [1.0, 0.9, NAN, 0.95, 0.85, 0.9, 0.9, 0.9]
    options = {"patience": 3, "min_delta": 0.01}
    whole, trainer = begun(**options)
    for value in values:
        trainer.run_epoch(whole, val_loss=value)

    first, before = begun(**options)
    for value in values[:cut]:
        before.run_epoch(first, val_loss=value)
    second, after = resumed(first.state_dict(), cut, **options)
    for value in values[cut:]:
        after.run_epoch(second, val_loss=value)
    assert second.state_dict() == whole.state_dict()
    assert after.stop_reason == trainer.stop_reason


def test_state_holds_progress_and_no_settings():
    stopper, _ = begun(patience=7, min_delta=0.5, min_epochs=3)
    text = str(stopper.state_dict())
    assert "patience" not in text
    assert "min_" not in text


def stopped_state(**options: Any) -> dict[str, Any]:
    stopper, trainer = begun(**{"patience": 2, **options})
    for value in (1.0, 2.0, NAN):
        trainer.run_epoch(stopper, val_loss=value)
    assert trainer.stop_reason is not None
    return stopper.state_dict()


@pytest.mark.parametrize(
    ("saved_with", "options", "words"),
    [
        pytest.param(
            {}, {"patience": 2}, "patience above 2", id="stays stopped, and says how on"
        ),
        pytest.param({}, {"patience": 3}, None, id="goes on with more patience"),
        pytest.param(
            {}, {"patience": 2, "min_epochs": 9}, None, id="goes on with min_epochs"
        ),
        pytest.param(
            {"patience": 9, "on_nonfinite": "stop"},
            {"patience": 9, "on_nonfinite": "stop"},
            "on_nonfinite to 'ignore'",
            id="stays stopped by a non-finite value",
        ),
        pytest.param(
            {"patience": 9, "on_nonfinite": "stop"},
            {"patience": 9},
            None,
            id="goes on when non-finite values are ignored now",
        ),
    ],
)
def test_a_stopped_run_that_is_resumed(saved_with, options, words):
    _, trainer = resumed(stopped_state(**saved_with), 3, **options)
    if words is None:
        assert trainer.stop_reason is None
    else:
        assert trainer.stop_reason.startswith("stopped before this resume: val_loss")
        assert words in trainer.stop_reason


@pytest.mark.parametrize("change", [{"monitor": "accuracy"}, {"mode": "max"}])
def test_another_monitor_or_mode_starts_afresh_with_a_warning(change, caplog):
    stopper, trainer = resumed(stopped_state(), 3, patience=2, **change)
    assert "its progress starts afresh" in caplog.text
    assert stopper.progress.checks == 0
    assert trainer.stop_reason is None


def test_before_a_run_there_is_no_state():
    assert EarlyStoppingCallback().state_dict() == {}


def test_state_of_another_version_is_refused():
    told = "early_stopping has version 99, but this plugin reads 1; use the release"
    with pytest.raises(CheckpointError, match=told):
        EarlyStoppingCallback().load_state_dict({"version": 99})


def test_a_new_run_of_the_same_instance_starts_afresh():
    stopper, trainer = begun(patience=2)
    for value in (1.0, 2.0):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_setup()
    stopper.on_train_begin(FakeTrainer(), resumed=False)
    assert stopper.progress.wait == 0
    assert stopper.best_value is None
