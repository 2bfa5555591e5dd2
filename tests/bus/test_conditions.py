"""A hook that says ``heard_if`` is called as its plugin is set when a run begins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Fails, make_trainer

from training import Callback, PluginError, hookimpl
from training.bus.bus import Bus
from training.bus.conditions import ALWAYS_HEARD, is_heard
from training.callbacks import (
    EvaluationCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
)
from training.hookspecs import HOOKS
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

    name = "marked"

    def __init__(self, every: int | None) -> None:
        self.every = every
        self.heard: list[int] = []

    @hookimpl
    @heard_if(lambda self: self.every)
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Heir(Ticks):
    name = "heir"

    def on_step_end(self, trainer: Any) -> None:
        super().on_step_end(trainer)


class Wraps(Ticks):
    """Overrides by what wraps the method of its base."""

    @functools.wraps(Ticks.on_step_end)
    def on_step_end(self, trainer: Any) -> None:
        super().on_step_end(trainer)


class Above(Ticks):
    """A decorator above the condition."""

    @torch.no_grad()
    @heard_if(lambda self: self.every)
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Below(Ticks):
    """And one below it."""

    @heard_if(lambda self: self.every)
    @torch.no_grad()
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Between(Ticks):
    """One that is marked for pluggy in between."""

    @torch.no_grad()
    @hookimpl
    @heard_if(lambda self: self.every)
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Stacked(Ticks):
    """Two conditions, with a decorator between them."""

    def __init__(self, every: int | None, verbose: bool) -> None:
        super().__init__(every)
        self.verbose = verbose

    @heard_if(lambda self: self.every)
    @torch.no_grad()
    @heard_if(lambda self: self.verbose)
    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)


class Neighbour(Callback):
    """Hears each step, so that the event has a slot whoever else hears it."""

    name = "neighbour"

    def on_step_end(self) -> None: ...


class Watches(Callback):
    """Keeps whether the event of a step had a slot."""

    has_slot: bool

    def on_batch_begin(self, trainer: Any) -> None:
        self.has_slot = trainer.bus.on_step_end is not None


#: Whether anybody else hears the event must not matter to who does.
BESIDE = pytest.mark.parametrize("beside", [[], [Neighbour()]], ids=["alone", "not"])


@pytest.mark.parametrize("plugin", [Ticks(None), Ticks(0), Marked(None)])
def test_an_event_that_no_plugin_waits_for_has_no_slot(plugin: Any) -> None:
    watches = Watches()
    make_trainer(None, None, plugin, watches).train()
    assert plugin.heard == []
    assert not watches.has_slot


@BESIDE
@pytest.mark.parametrize("kind", [Ticks, Marked])
def test_each_plugin_is_asked_for_itself(kind: Any, beside: list[Callback]) -> None:
    idle, busy = kind(None), kind(2)
    idle.name, busy.name = "idle", "busy"
    trainer = make_trainer(None, None, idle, busy, *beside)
    trainer.train()
    assert idle.heard == []
    assert busy.heard == list(range(1, trainer.step + 1))


@BESIDE
def test_what_is_changed_before_a_run_counts_in_it(beside: list[Callback]) -> None:
    idle, busy = Ticks(None), Ticks(1)
    idle.name, busy.name = "idle", "busy"  # type: ignore[misc]
    trainer = make_trainer(None, None, idle, busy, *beside)
    idle.every, busy.every = 1, None
    trainer.train()
    assert idle.heard == list(range(1, trainer.step + 1))
    assert busy.heard == []


@BESIDE
@pytest.mark.parametrize("hook", ["on_setup", "on_train_begin", "on_batch_begin"])
def test_what_is_changed_in_a_run_counts_from_the_next_one(
    hook: str, beside: list[Callback]
) -> None:
    def wake(self: Ticks) -> None:
        self.every = 1

    plugin = type("Wakes", (Ticks,), {hook: wake})(None)
    trainer = make_trainer(None, None, plugin, *beside)
    trainer.train()
    assert plugin.heard == []
    trainer.train()
    assert plugin.heard == list(range(1, trainer.step + 1))


class Sleeps(Ticks):
    """Says after each step that it would not wait for another one."""

    def on_step_end(self, trainer: Any) -> None:
        self.heard.append(trainer.step)
        self.every = None

    on_step_end = heard_if(lambda self: self.every)(on_step_end)


@BESIDE
def test_an_answer_holds_for_all_of_a_run_whoever_comes_and_goes(
    beside: list[Callback],
) -> None:
    plugin = Sleeps(1)
    trainer = make_trainer(None, None, plugin, Fails(), *beside)
    trainer.train()
    assert "fails" not in trainer.plugins
    assert plugin.heard == list(range(1, trainer.step + 1))
    trainer.train()
    assert plugin.heard == list(range(1, trainer.step + 1))


class Once(Callback):
    """Stands around the end of an epoch, asks not to, and saves behind it."""

    once = True

    def __init__(self, path: Path) -> None:
        self.path = path

    @hookimpl(wrapper=True)
    @heard_if(lambda self: self.once)
    def on_epoch_end(self, trainer: Any) -> Iterator[None]:
        yield
        self.once = False
        trainer.save_checkpoint(self.path)


def test_a_wrapper_may_save_after_it_has_changed_its_mind(tmp_path: Path) -> None:
    make_trainer(None, None, Once(tmp_path / "a.pt")).train()
    assert (tmp_path / "a.pt").exists()


def test_who_overrides_the_method_hears_the_event() -> None:
    plugin = Heir(None)
    make_trainer(None, None, plugin).train()
    assert plugin.heard


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.parametrize("kind", [Wraps, Above, Below, Between])
def test_what_wraps_the_method_obeys_its_condition(
    kind: type[Ticks], every: int | None
) -> None:
    plugin = kind(every)
    make_trainer(None, None, plugin).train()
    assert bool(plugin.heard) == bool(every)


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.parametrize("verbose", [False, True])
def test_of_several_conditions_each_must_hold(every: int | None, verbose: bool) -> None:
    plugin = Stacked(every, verbose)
    make_trainer(None, None, plugin).train()
    assert bool(plugin.heard) == bool(every and verbose)


def test_a_condition_that_raises_ends_the_run_with_its_plugin_and_locks_nothing() -> (
    None
):
    plugin = Ticks(1)
    trainer = make_trainer(None, None, plugin)
    del plugin.every
    with pytest.raises(PluginError, match=r"'ticks'.*on_step_end.*AttributeError"):
        trainer.train()
    plugin.every = 1
    trainer.train()
    assert plugin.heard


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ("on_exception", "is for cleaning up"),
        ("on_close", "is for cleaning up"),
        ("make_strategy", "is asked before a run begins"),
        ("resume_candidates", "is asked before a run begins"),
        ("plan_evaluations", "is asked before a run begins"),
        ("plan", "is asked before a run begins"),
    ],
)
def test_what_is_never_left_out_has_no_condition(hook: str, why: str) -> None:
    method = torch.no_grad()(heard_if(bool)(lambda self: None))
    plugin = type("Odd", (Callback,), {"hook_api": ">=1.1,<2", hook: method})()
    with pytest.raises(PluginError, match=f"'Odd'.*heard_if of {hook}, which {why}"):
        Bus().register(plugin)


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
    bus = make_trainer(None, None, make()).bus
    bus.choose_listeners(is_heard)
    assert (getattr(bus, hook) is not None) == hears


def test_no_other_hook_is_called_while_its_condition_does_not_hold() -> None:
    called: list[str] = []

    def told(hook: str) -> Any:
        def method(self: Any) -> None:
            called.append(hook)

        return method if hook in ALWAYS_HEARD else heard_if(lambda _: False)(method)

    plugin = type(
        "All",
        (Callback,),
        {"hook_api": ">=1.2,<2", **{hook: told(hook) for hook in HOOKS}},
    )()
    make_trainer(None, None, plugin).train(resume="auto")
    assert called == ["make_strategy", "resume_candidates", "on_close"]
