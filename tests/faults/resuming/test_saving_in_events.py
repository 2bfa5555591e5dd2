"""R1: what is saved while an event is told is whole, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults.runs import assert_same_end, build, end_of
from torch.optim.lr_scheduler import StepLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, Trainer, hookimpl


class Saves(Callback):
    """Saves once, in one hook, at one step; capitals come before all others."""

    def __init__(self, hook: str, path: Path, step: int = 6) -> None:
        def save(trainer: Trainer) -> None:
            if trainer.step == step and not path.exists():
                trainer.save_checkpoint(path)

        self.save = save
        setattr(self, hook, save)


class SavesLate(Saves):
    after = ("lr_scheduling", "ids", "zz")


class Counts(Callback):
    """Keeps how often it was called in one hook; is called after all others."""

    name = "zz"

    def __init__(self, hook: str) -> None:
        self.count = 0

        def count() -> None:
            self.count += 1

        setattr(self, hook, count)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def scheduled(interval: str, *callbacks: Any, **options: Any) -> Trainer:
    trainer = build(*callbacks, num_epochs=3, **options)
    schedule = StepLR(trainer.optimizer, 1, 0.5)
    trainer.bus.register(LearningRateSchedulerCallback(schedule, interval=interval))
    return trainer


HOOKS = {"on_step_end": "step", "on_epoch_end": "epoch"}


@pytest.mark.parametrize("hook", HOOKS)
def test_r1_saving_before_the_schedule_has_moved_is_refused_by_name(
    tmp_path: Path, hook: str
) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError) as caught:
        scheduled(HOOKS[hook], Saves(hook, path)).train()
    told = str(caught.value)
    assert f"plugin 'Saves' saves in {hook}, of which" in told
    assert "'lr_scheduling'" in told
    assert "request_checkpoint(reason)" in told
    assert "`after = (" in told
    assert not path.exists()


@pytest.mark.parametrize("hook", HOOKS)
def test_r1_saving_after_the_schedule_has_moved_resumes_equal(
    tmp_path: Path, hook: str
) -> None:
    path = tmp_path / "a.pt"
    straight = scheduled(HOOKS[hook], SavesLate(hook, path))
    straight.train()
    again = scheduled(HOOKS[hook])
    again.load_checkpoint(path)
    again.train()
    assert_same_end(end_of(again), end_of(straight), hook)


@pytest.mark.parametrize(
    ("hook", "is_refused"),
    [
        pytest.param("on_step_end", True, id="a step"),
        pytest.param("on_epoch_end", True, id="an epoch"),
        pytest.param("on_checkpoint", False, id="a checkpoint: writers do not wait"),
        pytest.param("on_epoch_begin", False, id="a begin, which is told again"),
        pytest.param("on_train_end", False, id="the end, which is told again"),
    ],
)
@pytest.mark.parametrize("makes", ["callback", "marked"])
def test_r1_a_counter_that_is_still_to_hear_of_it_is_waited_for(
    tmp_path: Path, hook: str, is_refused: bool, makes: str
) -> None:
    path = tmp_path / "a.pt"
    step = 18 if hook == "on_train_end" else 6
    trainer = build(Saves(hook, path, step), num_epochs=3)
    trainer.bus.unregister("ids")
    trainer.bus.register(Counts(hook) if makes == "callback" else marked(hook))
    if not is_refused:
        trainer.train()
        assert path.exists()
        return
    with pytest.raises(CheckpointError, match="'zz' will hear only afterwards"):
        trainer.train()


def marked(hook: str) -> Any:
    """Return a plugin without a base class that keeps state."""

    class Marked:
        name = "zz"

        def state_dict(self) -> dict[str, int]:
            return {"count": 1}

        def load_state_dict(self, state: Any) -> None: ...

    def heard(self: Any) -> None: ...

    setattr(Marked, hook, hookimpl(heard))
    return Marked()


class Hears(Callback):
    """Has nothing to keep."""

    name = "zz"

    def on_step_end(self) -> None:
        pass

    on_epoch_end = on_metrics = on_step_end


@pytest.mark.parametrize("hook", HOOKS)
def test_r1_a_later_plugin_without_state_keeps_nobody_from_saving(
    tmp_path: Path, hook: str
) -> None:
    path = tmp_path / "a.pt"
    straight = build(after_ids(hook, path), Hears(), num_epochs=3)
    straight.train()
    again = build(Hears(), num_epochs=3)
    again.load_checkpoint(path)
    again.train()
    assert_same_end(end_of(again), end_of(straight), hook)


def after_ids(hook: str, path: Path) -> Saves:
    class Own(Saves):
        after = ("ids",)

    return Own(hook, path)


def test_r1_a_plugin_that_was_taken_out_meanwhile_is_not_waited_for(
    tmp_path: Path,
) -> None:
    class Drops(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if "zz" in trainer.plugins:
                trainer.bus.unregister("zz")
                trainer.save_checkpoint(tmp_path / "a.pt")

    trainer = build(Drops(), Counts("on_step_end"), num_epochs=1)
    trainer.bus.unregister("ids")
    trainer.train()
    assert (tmp_path / "a.pt").exists()


class Measures(Callback):
    """Measures each epoch, and in the middle of the first."""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 3:
            trainer.request_evaluation("middle")

    def evaluate(self) -> dict[str, float]:
        return {"score": 1.0}


@pytest.mark.parametrize(
    ("hook", "step", "told"),
    [
        pytest.param("on_metrics", 6, "row of the epoch", id="metrics, epoch's end"),
        pytest.param("on_metrics", 3, None, id="metrics inside an epoch"),
        pytest.param("evaluate", 6, "evaluation is under way", id="epoch's end"),
        pytest.param("evaluate", 3, "evaluation is under way", id="inside an epoch"),
    ],
)
def test_r1_saving_before_the_row_or_the_metrics_are_there_is_refused(
    tmp_path: Path, hook: str, step: int, told: str | None
) -> None:
    path = tmp_path / "a.pt"
    straight = build(Measures(), Saves(hook, path, step))
    if told is not None:
        with pytest.raises(CheckpointError, match=told):
            straight.train()
        return
    straight.train()
    again = build(Measures())
    again.load_checkpoint(path)
    again.train()
    assert_same_end(end_of(again), end_of(straight), hook)


def test_r1_a_run_that_max_steps_ends_has_a_row_to_come_too(tmp_path: Path) -> None:
    saves = Saves("on_metrics", tmp_path / "a.pt", 4)
    trainer = build(Measures(), saves, max_steps=4)
    with pytest.raises(CheckpointError, match="row of the epoch"):
        trainer.train()


def test_r1_another_trainer_may_be_saved_in_a_hook(tmp_path: Path) -> None:
    other = build()

    class Inner(Callback):
        def on_step_end(self) -> None:
            other.save_checkpoint(tmp_path / "a.pt")

    build(Inner(), num_epochs=1).train()
    assert (tmp_path / "a.pt").exists()


class Wraps(Callback):
    """Surrounds a hook, and saves before or behind its yield, or only counts there."""

    def __init__(self, hook: str, path: Path, place: str) -> None:
        self.count = 0

        def save(trainer: Trainer, here: str) -> None:
            if here == place and trainer.step == 6 and not path.exists():
                trainer.save_checkpoint(path)

        @hookimpl(wrapper=True)
        def wrap(self: Any, trainer: Trainer) -> Any:
            save(trainer, "before")
            result = yield
            save(trainer, "behind")
            self.count += place == "counts"
            return result

        setattr(type(self), hook, wrap)


class Outer(Wraps):
    before = ("Inner",)

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None: ...


class Inner(Wraps):
    pass


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("others", "place", "told"),
    [
        pytest.param(["zz"], "before", "'zz' will hear only", id="before a listener"),
        pytest.param(["zz"], "behind", None, id="behind all"),
        pytest.param([], "before", None, id="where nobody else listens"),
        pytest.param(["Outer"], "before", "'Outer' will", id="inside another wrapper"),
        pytest.param(["Outer"], "behind", "'Outer' will", id="before another goes on"),
    ],
)
def test_r1_a_wrapper_saves_behind_all_who_are_to_hear(
    tmp_path: Path, hook: str, others: list[str], place: str, told: str | None
) -> None:
    path = tmp_path / "a.pt"
    trainer = build(Inner(hook, path, place), num_epochs=3)
    trainer.bus.unregister("ids")
    if "zz" in others:
        trainer.bus.register(Counts(hook))
    if "Outer" in others:
        trainer.bus.register(Outer(hook, path, "counts"))
    if told is None:
        trainer.train()
        assert path.exists()
        return
    with pytest.raises(CheckpointError, match=told):
        trainer.train()
    assert not path.exists()


@pytest.mark.parametrize("hook", HOOKS)
def test_r1_a_wrapper_with_state_that_is_to_go_on_keeps_a_listener_from_saving(
    tmp_path: Path, hook: str
) -> None:
    path = tmp_path / "a.pt"
    trainer = build(Saves(hook, path), Outer(hook, path, "counts"), num_epochs=3)
    trainer.bus.unregister("ids")
    with pytest.raises(CheckpointError, match="'Outer' will hear only afterwards"):
        trainer.train()


def test_r1_a_wrapper_that_saves_before_the_row_is_there_is_refused(
    tmp_path: Path,
) -> None:
    trainer = build(Inner("on_metrics", tmp_path / "a.pt", "before"), num_epochs=1)
    with pytest.raises(CheckpointError, match="row of the epoch"):
        trainer.train()
