"""What ``Trainer`` enables itself is heard as a plugin and counted nowhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy import make_trainer

from training import Callback, PluginError
from training.bus.bus import Bus
from training.bus.callback import BuiltIn


def named(kind: type[Callback], plugin_name: str, **declared: Any) -> Any:
    """Return a plugin that hears ``on_close``."""

    def on_close(self: Any) -> None:
        """Hear it."""

    return type(kind.__name__, (kind,), {"name": plugin_name, "on_close": on_close})(
        **declared
    )


class First(BuiltIn):
    """Before all others."""


class Last(BuiltIn):
    """Behind all others."""

    is_last = True


class Chosen(Callback):
    """A user's, that wants to stand around those built in."""

    before = ("zz_first",)
    after = ("aa_last",)


def bus_of_three() -> Bus:
    bus = Bus()
    bus.register_all([(None, named(Last, "aa_last")), (None, named(First, "zz_first"))])
    bus.register(named(Chosen, "mine"))
    return bus


def test_those_built_in_stand_around_all_others_whatever_these_declare() -> None:
    heard = [each.plugin_name for each in bus_of_three().listeners("on_close")]
    assert heard == ["zz_first", "mine", "aa_last"]


def test_those_built_in_are_not_among_the_plugins() -> None:
    bus = bus_of_three()
    assert list(bus.plugins) == ["mine"]
    bus.unregister("mine")
    assert dict(bus.plugins) == {}
    assert [each.plugin_name for each in bus.listeners("on_close")] == [
        "zz_first",
        "aa_last",
    ]


def test_the_name_of_one_built_in_is_taken() -> None:
    with pytest.raises(PluginError, match="two plugins are named 'zz_first'"):
        bus_of_three().register(named(Chosen, "zz_first"))


def test_a_checkpoint_knows_nothing_of_those_built_in(tmp_path: Any) -> None:
    trainer = make_trainer()
    trainer.train()
    assert trainer.bus.listeners("on_exception"), "the advice on memory is one"
    path = trainer.save_checkpoint(tmp_path / "a.pt")
    state = torch.load(path, weights_only=True)
    found = {str(value) for value in state["distributions"]}
    assert found == set(trainer.plugins)
    assert "memory_advice" not in str(state)
