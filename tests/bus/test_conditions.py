"""A hook that says ``heard_if`` costs nothing where its plugin does without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from toy import make_trainer

from training import Bus, Callback, PluginError, hookimpl
from training.callbacks import (
    EvaluationCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
)
from training.plugin import heard_if


class Ticks(Callback):
    name = "ticks"

    def __init__(self, every: int | None) -> None:
        self.every = every
        self.heard: list[int] = []

    @heard_if(lambda self: self.every)
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Marked:
    """No ``Callback``: its hooks are marked."""

    every = 0

    @hookimpl
    @heard_if(lambda self: self.every)
    def on_step_end(self) -> None: ...


class Heir(Ticks):
    name = "heir"

    def on_step_end(self, trainer: Any) -> None:
        super().on_step_end(trainer)


@pytest.mark.parametrize("plugin", [Ticks(None), Ticks(0), Marked()])
def test_an_event_that_no_plugin_waits_for_has_no_slot(plugin: Any) -> None:
    bus = Bus()
    bus.register(plugin)
    assert bus.on_step_end is None
    assert bus.listeners("on_step_end") == []


def test_each_plugin_is_asked_for_itself() -> None:
    bus = Bus()
    idle, busy = Ticks(None), Ticks(2)
    bus.register_all([("idle", idle), ("busy", busy)])
    assert [each.plugin_name for each in bus.listeners("on_step_end")] == ["busy"]


def test_what_is_changed_before_a_run_counts_in_it() -> None:
    idle, busy = Ticks(None), Ticks(1)
    idle.name, busy.name = "idle", "busy"  # type: ignore[misc]
    trainer = make_trainer(None, None, idle, busy)
    idle.every, busy.every = 1, None
    trainer.train()
    assert idle.heard
    assert idle.heard == list(range(1, trainer.step + 1))
    assert busy.heard == []


def test_what_is_changed_in_a_run_counts_from_the_next_one() -> None:
    class Wakes(Ticks):
        def on_train_begin(self) -> None:
            self.every = 1

    plugin = Wakes(None)
    trainer = make_trainer(None, None, plugin)
    trainer.train()
    assert plugin.heard == []
    trainer.train()
    assert plugin.heard


def test_an_heir_that_overrides_the_method_hears_the_event() -> None:
    plugin = Heir(None)
    make_trainer(None, None, plugin).train()
    assert plugin.heard


def test_a_condition_that_raises_is_refused_with_what_it_raised() -> None:
    class Broken(Callback):
        @heard_if(lambda self: self.evry)
        def on_step_end(self) -> None: ...

    bus = Bus()
    with pytest.raises(PluginError, match=r"heard_if.*AttributeError.*'evry'"):
        bus.register(Broken())
    assert not bus.plugins


@pytest.mark.parametrize(
    ("make", "hook", "hears"),
    [
        (lambda: EvaluationCallback(), "on_step_end", False),
        (lambda: EvaluationCallback(every_n_steps=3), "on_step_end", True),
        (lambda: ModelCheckpointCallback(), "on_step_end", False),
        (lambda: ModelCheckpointCallback(every_n_steps=3), "on_step_end", True),
        (lambda: ModelCheckpointCallback(async_save=True), "on_step_end", True),
        (lambda: LearningRateSchedulerCallback(type="cosine"), "on_step_end", True),
        (
            lambda: LearningRateSchedulerCallback(type="cosine", interval="epoch"),
            "on_step_end",
            False,
        ),
        (lambda: LearningRateSchedulerCallback(type="plateau"), "on_step_end", False),
        (lambda: ProgressBarCallback(), "on_batch_end", True),
        (lambda: ProgressBarCallback(verbose=0), "on_batch_end", False),
    ],
)
def test_a_shipped_plugin_hears_steps_only_where_it_acts_by_them(
    make: Callable[[], Callback], hook: str, hears: bool
) -> None:
    bus = Bus()
    bus.register(make())
    assert (getattr(bus, hook) is not None) == hears
