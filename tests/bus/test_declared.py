"""What a plugin declares is spelt right, or the plugin is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from training import Callback, PluginError, hookimpl
from training.bus.bus import Bus
from training.testing import assert_plugin_conforms


class Marked:
    """No ``Callback``."""

    @hookimpl
    def on_epoch_end(self) -> None: ...


def nothing(self: Any, *_: Any) -> None: ...


BASES = pytest.mark.parametrize("base", [Callback, Marked])


@BASES
@pytest.mark.parametrize(
    ("says", "meant"),
    [
        ({"rank": "main"}, "ranks"),
        ({"failures": "isolate"}, "failure"),
        ({"alter_training": True}, "alters_training"),
        ({"befor": ("csv",)}, "before"),
        ({"afters": "csv"}, "after"),
        ({"mutate": ("rng",)}, "mutates"),
        ({"reads_devices": {"on_step_end": "the loss"}}, "reads_device"),
        ({"hook_apis": ">=1.0,<2"}, "hook_api"),
        ({"load_statedict": nothing, "state_dict": nothing}, "load_state_dict"),
        ({"state_dicts": nothing, "load_state_dict": nothing}, "state_dict"),
        ({"state_dct": nothing, "load_state_dct": nothing}, "state_dict"),
        ({"statedict": nothing, "loadstatedict": nothing}, "state_dict"),
        ({"load_state_dcit": nothing}, "load_state_dict"),
        ({"state_dct": nothing}, "state_dict"),
    ],
)
def test_a_misspelt_attribute_is_refused_with_the_near_one(
    says: dict[str, Any], meant: str, base: type[Any]
) -> None:
    parent = type("Parent", (base,), says)
    told = rf"'Typo' .*{next(iter(says))}.*\(did you mean '{meant}'"
    with pytest.raises(PluginError, match=told):
        Bus().register(type("Typo", (parent,), {})())


@BASES
@pytest.mark.parametrize(
    "says",
    [
        {"order": 3, "name2": "x", "names": ("a",), "schedulers": []},
        {"rank": 0, "failures": 0},  # filled in a run
        {"rank": None, "mutate": nothing},
        {"rank": property(lambda self: "main")},
        {"ranks": "all", "rank": "main"},  # knows the right one, too
        {"_rank": "main"},
        {"upload_state_dict": nothing, "reload_state_dict": nothing},
        {"get_state": nothing, "set_state": nothing, "add_state_dict": nothing},
        {"format": "csv", "load_state": nothing, "root": "main", "produced": ()},
    ],
    ids=" ".join,
)
def test_an_attribute_of_its_own_is_let_in(
    says: dict[str, Any], base: type[Any]
) -> None:
    Bus().register(type("Own", (base,), says)())


@dataclasses.dataclass
class Options(Callback):
    rank: str = "main"
    failures: str = "isolate"


def test_what_an_instance_was_given_is_data() -> None:
    Bus().register(Options())


@BASES
@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"mutates": ("weights",)}, r"mutates = \('weights',\); list some of: param"),
        ({"mutates": "gradients"}, r"mutates = 'gradients'; list some of"),
        ({"mutates": None}, r"mutates = None; list some of"),
        ({"reads_device": ("on_stepend",)}, r"did you mean 'on_step_end'"),
        ({"reads_device": {"on_stepend": "why"}}, r"did you mean 'on_step_end'"),
        ({"reads_device": True}, r"reads_device = True; list some of"),
    ],
)
def test_a_value_that_lists_what_there_is_not_is_refused(
    says: dict[str, Any], words: str, base: type[Any]
) -> None:
    with pytest.raises(PluginError, match=words):
        Bus().register(type("Odd", (base,), says)())


@BASES
def test_what_there_is_may_be_listed(base: type[Any]) -> None:
    says = {"mutates": ["rng", "modes"], "reads_device": {"on_step_end": "the loss"}}
    Bus().register(type("Right", (base,), says)())


def test_a_value_on_the_instance_is_looked_at() -> None:
    plugin = Callback()
    plugin.mutates = ("weights",)  # type: ignore[misc]
    with pytest.raises(PluginError, match="list some of: parameters"):
        Bus().register(plugin)


@BASES
def test_a_state_that_is_never_read_is_refused(base: type[Any]) -> None:
    plugin = type("Forgets", (base,), {"state_dict": lambda self: {"n": 1}})
    with pytest.raises(PluginError, match=r"'Forgets' .* without load_state_dict"):
        Bus().register(plugin())
    Bus().register(type("Keeps", (plugin,), {"load_state_dict": nothing})())


def test_a_state_that_an_heir_saves_otherwise_is_read_by_its_base() -> None:
    parent = type("Parent", (Callback,), {"load_state_dict": nothing})
    Bus().register(type("Heir", (parent,), {"state_dict": lambda self: {"n": 1}})())


def test_the_kit_finds_them(tmp_path: Any) -> None:
    says = {"hook_api": ">=1.0,<2", "on_epoch_end": nothing, "failures": "isolate"}
    with pytest.raises(AssertionError, match="did you mean 'failure'"):
        assert_plugin_conforms(type("Typo", (Callback,), says), folder=tmp_path)


@pytest.mark.parametrize(
    ("says", "is_told"),
    [
        ({}, True),
        ({"helper": nothing}, True),
        ({"on_step_end": None}, True),
        ({"on_step_end": lambda self: None}, False),
        ({"state_dict": lambda self: {}, "load_state_dict": nothing}, False),
    ],
)
def test_a_callback_that_hears_nothing_is_warned_of(
    says: dict[str, Any], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Bus().register(type("Deaf", (Callback,), says)())
    told = "Deaf) hears nothing: no method of it has the name of a hook"
    assert (told in caplog.text) is is_told
