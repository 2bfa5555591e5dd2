"""Which plugins a process calls that is not the main one, and who may say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy import make_trainer

from training import Callback, PluginError, Trainer
from training.bus.bus import Bus
from training.hookspecs import HOOKS
from training.plugin import Strategy


class Second(Strategy):
    """The second of two processes, alone."""

    rank = 1
    size = 2


class Spreads(Callback):
    hook_api = ">=1.1,<2"

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def make_strategy(self) -> Strategy:
        return self.strategy


class Hears(Callback):
    """Notes what it is called for."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_setup(self) -> None:
        self.heard.append("on_setup")

    def on_batch_end(self) -> None:
        self.heard.append("on_batch_end")

    def evaluate(self) -> dict[str, float]:
        self.heard.append("evaluate")
        return {}

    def on_close(self) -> None:
        self.heard.append("on_close")

    def state_dict(self) -> dict[str, Any]:
        self.heard.append("state_dict")
        return {"heard": 1}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.heard.append("load_state_dict")


class HearsOnMain(Hears):
    name = "observer"
    ranks = "main"


def runs(*plugins: Any) -> Trainer:
    return make_trainer(None, None, *plugins)


def test_d25_a_main_only_plugin_is_not_called_on_another_process(
    tmp_path: Path,
) -> None:
    everywhere, on_main = Hears(), HearsOnMain()
    trainer = runs(Spreads(Second()), everywhere, on_main)
    trainer.train()
    trainer.save_checkpoint(tmp_path / "a.pt")
    trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.train()
    assert on_main.heard == []
    assert {"on_batch_end", "load_state_dict", "on_close"} <= set(everywhere.heard)
    assert "observer" in trainer.plugins


def test_d25_the_main_process_calls_all(tmp_path: Path) -> None:
    everywhere, on_main = Hears(), HearsOnMain()
    trainer = runs(everywhere, on_main)
    trainer.save_checkpoint(tmp_path / "a.pt")
    trainer.train()
    assert on_main.heard == everywhere.heard


def test_d25_its_state_is_that_of_the_main_process(tmp_path: Path) -> None:
    runs(HearsOnMain()).save_checkpoint(tmp_path / "a.pt")
    trainer = runs(Spreads(Second()), HearsOnMain())
    trainer.load_checkpoint(tmp_path / "a.pt", allow_changes=["world_size"])
    trainer.train()
    trainer.save_checkpoint(tmp_path / "b.pt")
    plugin = HearsOnMain()
    resumed = runs(plugin)
    resumed.load_checkpoint(tmp_path / "b.pt", allow_changes=["world_size"])
    resumed.train()
    assert "load_state_dict" in plugin.heard


def test_d25_without_anybody_to_call_an_event_costs_a_comparison() -> None:
    bus = Bus()
    bus.register(HearsOnMain())
    assert bus.on_batch_end is not None
    bus.set_distributed(is_main=False)
    assert all(getattr(bus, hook) is None for hook in HOOKS)
    bus.register(HearsOnMain(), "later")
    assert bus.on_batch_end is None
    bus.register(Hears())
    assert bus.on_batch_end is not None


@pytest.mark.parametrize("ranks", ["first", "", None, 0, ("main",)])
def test_d25_ranks_are_all_or_main(ranks: Any) -> None:
    class Odd(Callback):
        pass

    Odd.ranks = ranks
    with pytest.raises(PluginError, match=r"'Odd' .* choose one of: all, main"):
        Bus().register(Odd())


def answers_window(self: Any) -> None:
    """Answer nothing."""


@pytest.mark.parametrize(
    ("says", "named"),
    [
        ({"mutates": ("gradients",)}, "changes gradients"),
        ({"alters_training": True}, "alters training"),
        ({"wrap_model": answers_window}, "answers wrap_model"),
        ({"wrap_dataloader": answers_window}, "answers wrap_dataloader"),
        (
            {"make_window": answers_window, "hook_api": ">=1.1,<2"},
            "answers make_window",
        ),
    ],
)
def test_d25_what_steers_cannot_be_left_to_main(
    says: Mapping[str, Any], named: str
) -> None:
    steers = type("Steers", (Callback,), {**says, "ranks": "main"})
    with pytest.raises(PluginError, match=f"says ranks = 'main', but {named}"):
        Bus().register(steers())
    Bus().register(type("Steers", (Callback,), dict(says))())
    observes = type("Observes", (Callback,), dict(says))()
    observes.ranks = "main"  # type: ignore[misc]  # as an option in __init__ would
    with pytest.raises(PluginError, match=f"says ranks = 'main', but {named}"):
        Bus().register(observes)


def test_d25_a_word_on_an_instance_is_one_of_both() -> None:
    plugin = Hears()
    plugin.ranks = "first"  # type: ignore[misc]
    with pytest.raises(PluginError, match=r"'Hears' .* choose one of: all, main"):
        Bus().register(plugin)
    plugin.ranks = [0, 1]  # type: ignore[misc, assignment]  # something of its own
    Bus().register(plugin)
