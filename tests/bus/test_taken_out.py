"""A plugin that is taken out of a run is closed, and called no more."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from toy import make_trainer

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, PluginError, Trainer, hookimpl
from training.bus.bus import Bus


class Heard(Callback):
    """Keeps the hooks it hears."""

    name = "heard"

    def __init__(self, fails: bool = False) -> None:
        self.heard: list[str] = []
        self.fails = fails

    def on_step_end(self, trainer: Trainer) -> None:
        self.heard.append(f"step {trainer.step}")

    def on_epoch_end(self) -> None:
        self.heard.append("epoch")

    def evaluate(self) -> dict[str, float]:
        self.heard.append("evaluate")
        return {"score": 1.0}

    def metric_names(self) -> list[str]:
        return ["score"]

    def on_exception(self, error: BaseException) -> None:
        self.heard.append("exception")

    def on_close(self) -> None:
        self.heard.append("close")
        if self.fails:
            raise OSError("disk")


class Takes(Callback):
    """Takes ``heard`` out in one hook, before or after it is called there."""

    def __init__(self, hook: str, before: tuple[str, ...] = ()) -> None:
        self.before = before
        self.hook = hook

    def _take(self, trainer: Any, hook: str) -> None:
        if hook == self.hook and "heard" in trainer.plugins:
            trainer.bus.unregister("heard")

    def on_setup(self, trainer: Trainer) -> None:
        self._take(trainer, "on_setup")

    def on_step_end(self, trainer: Trainer) -> None:
        self._take(trainer, "on_step_end")

    def evaluate(self, trainer: Trainer) -> None:
        self._take(trainer, "evaluate")

    def metric_names(self) -> list[str]:
        return []

    def on_exception(self, trainer: Trainer) -> None:
        self._take(trainer, "on_exception")

    def on_close(self, trainer: Trainer) -> None:
        self._take(trainer, "on_close")


class Fails(Callback):
    def on_epoch_end(self) -> None:
        raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("hook", "before", "heard"),
    [
        pytest.param("on_setup", ("heard",), ["close"], id="while all are set up"),
        pytest.param("on_step_end", ("heard",), ["close"], id="in the event at hand"),
        pytest.param("on_step_end", (), ["step 1", "close"], id="after its turn"),
        pytest.param(
            "evaluate",
            ("heard",),
            ["step 1", "step 2", "step 3", "step 4", "close"],
            id="where results are collected",
        ),
        pytest.param(
            "on_close",
            ("heard",),
            ["step 1", "step 2", "step 3", "step 4", "evaluate", "epoch", "close"],
            id="at the end, and not twice",
        ),
        pytest.param(
            "on_close",
            (),
            ["step 1", "step 2", "step 3", "step 4", "evaluate", "epoch", "close"],
            id="once it is closed",
        ),
    ],
)
def test_a_plugin_taken_out_is_closed_once_and_hears_no_more(
    hook: str, before: tuple[str, ...], heard: list[str]
) -> None:
    plugin, takes = Heard(), Takes(hook, before)
    if not before:
        takes.after = ("heard",)
    trainer = make_trainer(None, None, plugin, takes)
    trainer.train()
    assert plugin.heard == heard
    assert "heard" not in trainer.plugins


def test_one_taken_out_when_the_run_fails_does_not_hear_of_it() -> None:
    plugin = Heard()
    takes = Takes("on_exception", ("heard",))
    with pytest.raises(RuntimeError, match="mine"):
        make_trainer(None, None, plugin, takes, Fails()).train()
    assert plugin.heard[-1] == "close"
    assert "exception" not in plugin.heard


def test_what_on_close_raises_reaches_the_one_who_took_it_out() -> None:
    plugin = Heard(fails=True)
    trainer = make_trainer(None, None, plugin, Takes("on_step_end"))
    with pytest.raises(OSError, match="disk"):
        trainer.train()
    assert plugin.heard.count("close") == 1
    assert "heard" not in trainer.plugins


def test_a_plugin_may_take_itself_out_in_any_hook() -> None:
    class Leaves(Heard):
        def on_step_end(self, trainer: Trainer) -> None:
            trainer.bus.unregister("heard")

    plugin = Leaves()
    make_trainer(None, None, plugin).train()
    assert plugin.heard == ["close"]


class Twice(Heard):
    """Has two methods for its end; each is called."""

    @hookimpl(specname="on_close")
    def let_go(self) -> None:
        self.heard.append("let go")


@pytest.mark.parametrize("hook", ["", "on_step_end", "on_close"])
def test_each_of_two_methods_for_the_end_is_called_once(hook: str) -> None:
    plugin = Twice()
    make_trainer(None, None, plugin, Takes(hook, ("heard",))).train()
    assert sorted(plugin.heard[-2:]) == ["close", "let go"]
    assert plugin.heard.count("close") == plugin.heard.count("let go") == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_outside_of_a_run_nothing_is_closed(when: str) -> None:
    plugin = Heard()
    trainer = make_trainer(None, None, plugin)
    if when == "after":
        trainer.train()
        plugin.heard.clear()
    trainer.bus.unregister("heard")
    assert plugin.heard == []
    with pytest.raises(PluginError, match="no plugin is named 'heard'"):
        trainer.bus.unregister("heard")


def test_one_whose_part_stays_in_the_run_is_not_taken_out_of_it() -> None:
    class Around(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *given: Any) -> Any:
            return self.inner(*given)

    class Wraps(Heard):
        def wrap_model(self, model: nn.Module) -> nn.Module:
            return Around(model)

    trainer = make_trainer(None, None, Wraps(), Takes("on_step_end"))
    with pytest.raises(PluginError, match=r"what its wrap_model made stays; take it"):
        trainer.train()
    assert "heard" in trainer.plugins
    trainer.bus.unregister("heard")  # the run is over


def test_each_run_closes_again() -> None:
    plugin = Heard()
    trainer = make_trainer(None, None, plugin)
    trainer.train()
    trainer.train()
    assert plugin.heard.count("close") == 2


def test_a_plugin_registered_and_taken_out_in_one_event_is_never_called() -> None:
    bus, plugin = Bus(), Heard()

    class Host(Callback):
        def on_epoch_end(self) -> None:
            bus.register(plugin)
            bus.unregister("heard")

    bus.register(Host())
    assert bus.on_epoch_end is not None
    bus.on_epoch_end(None, {})
    assert plugin.heard == []


@pytest.mark.parametrize("options", [{}, {"async_save": True}])
def test_checkpointing_taken_out_leaves_neither_lock_nor_thread(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    class TakesOut(Callback):
        before = ("checkpointing",)

        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 3:
                trainer.bus.unregister("checkpointing")

    before = threading.active_count()
    saves = ModelCheckpointCallback(tmp_path, monitor=None, every_n_steps=1, **options)
    make_trainer(None, None, TakesOut(), saves).train()
    assert not (tmp_path / "run.lock").exists()
    assert threading.active_count() == before
    assert [path.name for path in tmp_path.glob("*.pt")] == ["last-epoch000-step2.pt"]
