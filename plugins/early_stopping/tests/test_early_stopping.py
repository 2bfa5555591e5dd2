"""What early stopping promises, as a table of claims."""

from __future__ import annotations

import logging
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from trainbus_early_stopping import EarlyStoppingCallback, improved
from training import Bus, Callback
from training.checkpoint_io import read_checkpoint, write_checkpoint
from training.errors import CheckpointError, ConfigError, MetricError
from training.loop.criterion import Criterion
from training.trainer import Trainer

NAN, INF = float("nan"), float("inf")


class FakeTrainer:
    """Counts epochs of two steps, and keeps what was asked for."""

    def __init__(self, *plugins: Any) -> None:
        self.epoch = self.step = 0
        self.metrics = {"train_loss": 1.0}
        self.resumed_from = None
        self.model = torch.nn.Linear(1, 1)
        self.criterion = Criterion(None, self.model)
        self.bus = Bus()
        self.bus.register_all([(None, plugin) for plugin in plugins])
        self.stop_reason: str | None = None
        self.weights_are = "live"

    def require_metric(self, name: str, owner: str) -> None:
        if name not in ("val_loss", "accuracy"):
            raise MetricError(f"{owner} watches {name!r}, but there is: val_loss")

    def request_stop(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason

    def run_epoch(self, stopper: EarlyStoppingCallback, **metrics: float) -> None:
        """Train and evaluate; the weight equals the step count."""
        self.epoch, self.step = self.epoch + 1, self.step + 2
        torch.nn.init.constant_(self.model.weight, self.step)
        stopper.on_metrics(self, {"train_loss": 1.0, **metrics})
        stopper.on_checkpoint(self)


def begun(trainer: Any = None, **options: Any) -> tuple[EarlyStoppingCallback, Any]:
    trainer = trainer or FakeTrainer()
    stopper = EarlyStoppingCallback(**options)
    stopper.on_setup()
    stopper.on_train_begin(trainer, resumed=False)
    return stopper, trainer


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
        pytest.param({"patience": True}, "patience is True", id="a bool for a count"),
        pytest.param({"min_delta": -0.1}, "min_delta is -0.1", id="negative min_delta"),
        pytest.param(
            {"min_delta": NAN},
            "min_delta is nan, but must be finite",
            id="NaN min_delta",
        ),
        pytest.param({"mode": "auto"}, "must be 'min' or 'max'", id="unknown mode"),
        pytest.param(
            {"monitor": ""}, "must have at least 1 character", id="empty monitor"
        ),
        pytest.param(
            {"on_nonfinite": "raise"}, "'ignore' or 'stop'", id="unknown policy"
        ),
        pytest.param({"min_epochs": -1}, "min_epochs is -1", id="negative min_epochs"),
        pytest.param(
            {"persist_best": "no"}, "'path' or 'weights'", id="unknown persistence"
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


# State -------------------------------------------------------


def resumed(
    state: dict[str, Any], epoch: int, **options: Any
) -> tuple[EarlyStoppingCallback, FakeTrainer]:
    trainer = FakeTrainer()
    trainer.epoch, trainer.step = epoch, 2 * epoch
    torch.nn.init.constant_(trainer.model.weight, trainer.step)
    stopper = EarlyStoppingCallback(**options)
    stopper.on_setup()
    stopper.load_state_dict(state)
    stopper.on_train_begin(trainer, resumed=True)
    return stopper, trainer


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
    with pytest.raises(CheckpointError, match="version 99"):
        EarlyStoppingCallback().load_state_dict({"version": 99})


def test_a_new_run_of_the_same_instance_starts_afresh():
    stopper, trainer = begun(patience=2)
    for value in (1.0, 2.0):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_setup()
    stopper.on_train_begin(FakeTrainer(), resumed=False)
    assert stopper.progress.wait == 0
    assert stopper.best_value is None


# Best weights ------------------------------------------------


def weight_of(trainer: Any) -> float:
    return trainer.model.weight.item()


def test_best_weights_come_back_from_a_copy_that_training_cannot_change():
    stopper, trainer = begun(restore_best_weights=True)
    for value in (1.0, 0.5, 0.7):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert weight_of(trainer) == 4
    assert trainer.weights_are == "best@4"


def test_best_means_best_seen_also_when_the_gain_was_below_min_delta():
    stopper, trainer = begun(restore_best_weights=True, min_delta=0.5, patience=9)
    for value in (1.0, 0.9, 0.95):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert (stopper.best_value, weight_of(trainer)) == (0.9, 4)


def test_live_weights_that_are_the_best_stay_and_are_called_so():
    stopper, trainer = begun(restore_best_weights=True)
    for value in (1.0, 0.5):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert (weight_of(trainer), trainer.weights_are) == (4, "best@4")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="not asked for"),
        pytest.param({"restore_best_weights": True}, id="nothing finite"),
    ],
)
def test_live_weights_stay(options):
    stopper, trainer = begun(**options)
    for value in (1.0, 2.0) if not options else (NAN, NAN):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert (weight_of(trainer), trainer.weights_are) == (4, "live")


class Files(Callback):
    """Offers checkpoints as the checkpointing plugin does."""

    hook_api = ">=1.1,<2"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_checkpoint(self, step: int) -> Path | None:
        path = self.folder / f"{step}.pt"
        return path if path.exists() else None


def saved(folder: Path, step: int, weight: float, best_seen: float) -> Path:
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, weight)
    own = {"progress": {"best_seen": best_seen}}
    plugins = {"early_stopping": own}
    state = {"model": model.state_dict(), "plugins": plugins}
    return write_checkpoint(folder / f"{step}.pt", state)


def flip_a_bit(path: Path) -> None:
    """Change the stored weight 40.0 by one bit, as a failing disk would."""
    content = path.read_bytes()
    assert content.count(struct.pack("<f", 40)) == 1
    path.write_bytes(content.replace(struct.pack("<f", 40), b"\1\0\x20\x42"))


@pytest.mark.parametrize(
    ("best_seen", "damage", "expected"),
    [
        pytest.param(
            0.5, None, (40.0, "best@4"), id="from the checkpoint of that step"
        ),
        pytest.param(0.6, None, (6.0, "live"), id="not from another run's checkpoint"),
        pytest.param(0.5, flip_a_bit, (6.0, "live"), id="not from a damaged one"),
        pytest.param(0.5, Path.unlink, (6.0, "live"), id="not from one that is gone"),
    ],
)
def test_best_weights_come_back(tmp_path, caplog, best_seen, damage, expected):
    stopper, trainer = begun(FakeTrainer(Files(tmp_path)), restore_best_weights=True)
    path = saved(tmp_path, 4, 40.0, best_seen)  # 40 tells it from the copy
    for value in (1.0, 0.5, 0.7):
        trainer.run_epoch(stopper, val_loss=value)
    assert stopper._weights.copy is None  # a complete checkpoint replaces it
    if damage is not None:
        damage(path)
    stopper.on_train_end(trainer)
    assert (weight_of(trainer), trainer.weights_are) == expected
    assert ("live weights stay" in caplog.text) == (expected[1] == "live")


def test_the_checkpoint_of_the_best_step_is_declared_as_needed():
    stopper, trainer = begun(restore_best_weights=True)
    assert stopper.needed_checkpoints() == frozenset()
    trainer.run_epoch(stopper, val_loss=1.0)
    trainer.run_epoch(stopper, val_loss=2.0)
    assert stopper.needed_checkpoints() == {2}
    assert EarlyStoppingCallback().needed_checkpoints() == frozenset()


def test_resuming_at_the_best_step_takes_the_copy_again():
    first, before = begun(restore_best_weights=True)
    before.run_epoch(first, val_loss=1.0)
    second, after = resumed(first.state_dict(), 1, restore_best_weights=True)
    after.run_epoch(second, val_loss=2.0)
    second.on_train_end(after)
    assert (weight_of(after), after.weights_are) == (2, "best@2")


@pytest.mark.parametrize(("persist", "expected"), [("path", 6), ("weights", 2)])
def test_best_weights_outlive_a_resume_if_a_copy_is_persisted(
    tmp_path, persist, expected
):
    options = {"restore_best_weights": True, "persist_best": persist}
    first, before = begun(**options)
    for value in (1.0, 2.0):
        before.run_epoch(first, val_loss=value)
    path = write_checkpoint(tmp_path / "a.pt", {"own": first.state_dict()})
    second, after = resumed(read_checkpoint(path)["own"], 2, **options)
    after.run_epoch(second, val_loss=2.0)
    second.on_train_end(after)
    assert weight_of(after) == expected


# With the kernel ---------------------------------------------


class Evaluates(Callback):
    """Delivers the given losses, one an epoch."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": self.losses[trainer.epoch - 1]}


def build(*callbacks: Any, num_epochs: int = 8) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    return Trainer(
        model,
        [(torch.ones(2, 1), torch.ones(2, 1))] * 3,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=callbacks,
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        loss_fn=torch.nn.functional.mse_loss,
        loss_per="samples",  # rows that are all alike tell nothing
    )


class Records(Callback):
    """Keeps the weights of every epoch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.weights.append(trainer.model.weight.detach().clone())


def test_a_run_ends_at_the_check_that_uses_up_patience_with_the_best_weights():
    seen = Records()
    trainer = build(
        seen,
        Evaluates(1.0, 0.5, 0.6, 0.7, 0.1),
        EarlyStoppingCallback(
            monitor="val_loss",
            patience=2,
            min_delta=0.001,
            mode="min",
            restore_best_weights=True,
        ),
    )
    trainer.train()
    assert (trainer.epoch, trainer.stop_owner) == (4, "early_stopping")
    assert "(best 0.5 at epoch 2)" in trainer.stop_reason
    assert trainer.weights_are == "best@6"
    assert torch.equal(trainer.model.weight, seen.weights[1])


def test_best_weights_are_restored_whatever_ended_the_run_but_not_on_an_exception():
    class Fails(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            if trainer.epoch == 3:
                raise RuntimeError("third epoch")

    def stopper() -> EarlyStoppingCallback:
        return EarlyStoppingCallback(restore_best_weights=True)

    planned = build(Evaluates(0.5, 0.6, 0.7), stopper(), num_epochs=3)
    planned.train()
    assert planned.weights_are == "best@3"
    failed = build(Evaluates(0.5, 0.6, 0.7), stopper(), Fails(), num_epochs=3)
    with pytest.raises(RuntimeError, match="third epoch"):
        failed.train()
    assert failed.weights_are == "live"


def test_a_stopped_run_stays_stopped_when_resumed_and_goes_on_with_more_patience(
    tmp_path,
):
    class Saves(Callback):
        def on_checkpoint(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(tmp_path / "last.pt")

    losses = Evaluates(1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    build(losses, EarlyStoppingCallback(patience=2), Saves()).train()
    again = build(losses, EarlyStoppingCallback(patience=2))
    again.load_checkpoint(tmp_path / "last.pt")
    again.train()
    assert again.epoch == 3
    assert "set early_stopping.patience above 2" in again.stop_reason
    patient = build(losses, EarlyStoppingCallback(patience=4))
    patient.load_checkpoint(tmp_path / "last.pt")
    patient.train()
    assert (patient.epoch, patient.stop_owner) == (5, "early_stopping")


def test_training_twice_gives_the_same_run_twice():
    trainer = build(Evaluates(1.0, 2.0, 2.0, 0.1), EarlyStoppingCallback(patience=2))
    trainer.train()
    first = trainer.epoch, trainer.stop_reason
    trainer.train()
    assert (trainer.epoch, trainer.stop_reason) == first


def test_quiet_runs_warn_about_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        build(Evaluates(3.0, 2.0, 1.0), EarlyStoppingCallback(), num_epochs=3).train()
    assert caplog.text == ""


def test_extra_state_of_a_module_is_copied_too():
    class Odd(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, list[int]]:
            return {"kept": [1]}

        def set_extra_state(self, state: dict[str, list[int]]) -> None:
            self.kept = state["kept"]

    stopper, trainer = begun(restore_best_weights=True)
    trainer.model = Odd(1, 1)
    for value in (1.0, 2.0):
        trainer.run_epoch(stopper, val_loss=value)
    stopper.on_train_end(trainer)
    assert trainer.model.kept == [1]
