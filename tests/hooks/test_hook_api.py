"""G11: versions of the hook API, and what is deprecated in one."""

from __future__ import annotations

import inspect
import types
from typing import Any

import pytest

from training import Bus, Callback, PluginError, hookspecs
from training.bus import bus as bus_module
from training.hooks.hook_api import SINCE


@pytest.mark.parametrize("hook_api", [None, ">=1.0,<2", "~=1.0", ">=1"])
def test_a_range_that_holds_this_hook_api_is_let_in(hook_api: str | None) -> None:
    plugin = type("Lab", (Callback,), {"hook_api": hook_api})()
    assert Bus().register(plugin) == "Lab"


@pytest.mark.parametrize(
    ("hook_api", "words"),
    [
        pytest.param(">=2,<3", r">=2,<3, but .* has 1\.\d+ and .*>=1.0,<=1", id="new"),
        pytest.param("<1.0", r"needs hook API <1.0", id="old"),
        pytest.param("one", r"declares hook_api 'one'; write a range", id="no range"),
        pytest.param(1.0, r"declares hook_api 1.0; write a range", id="a number"),
    ],
)
def test_another_hook_api_is_refused_with_both_ranges(
    hook_api: Any, words: str
) -> None:
    plugin = type("Lab", (Callback,), {"hook_api": hook_api})()
    with pytest.raises(PluginError, match=words):
        Bus().register(plugin)


#: The arguments of each hook in API 1.0: within 1.x some are added, none goes.
FROZEN = """
wrap_model trainer model
wrap_dataloader trainer dataloader stage
on_setup trainer
metric_names trainer
on_train_begin trainer resumed
on_epoch_begin trainer
on_batch_begin trainer batch inputs
on_batch_end trainer batch logs
on_before_step trainer
on_step_end trainer logs applied
evaluate trainer reason
on_metrics trainer metrics
on_epoch_end trainer metrics
on_checkpoint trainer reason
on_train_end trainer
on_exception trainer error
on_close trainer
"""


def test_hooks_and_arguments_are_only_added_and_that_raises_the_version() -> None:
    now = {
        hook: list(inspect.signature(getattr(hookspecs, hook)).parameters)
        for hook in hookspecs.HOOKS
    }
    then = {line.split()[0]: line.split()[1:] for line in FROZEN.split("\n") if line}
    for hook, arguments in then.items():
        assert now[hook][: len(arguments)] == arguments, hook
    major, minor = map(int, hookspecs.API_VERSION.split("."))
    assert major == 1
    assert (now == then) == (minor == 0)


def test_each_hook_that_came_later_says_since_when() -> None:
    first = {line.split()[0] for line in FROZEN.split("\n") if line}
    assert set(SINCE) == set(hookspecs.HOOKS) - first


@pytest.fixture
def aged_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``on_epoch_end`` and the argument ``batch`` be deprecated."""
    specs = types.ModuleType("specs")
    vars(specs).update({hook: getattr(hookspecs, hook) for hook in hookspecs.HOOKS})

    @hookspecs.hookspec(warn_on_impl=DeprecationWarning("on_epoch_end goes in 2.0"))
    def on_epoch_end(trainer: Any, metrics: Any) -> None: ...

    gone = {"batch": DeprecationWarning("batch goes in 2.0")}

    @hookspecs.hookspec(warn_on_impl_args=gone)
    def on_batch_end(trainer: Any, batch: int, logs: Any) -> None: ...

    vars(specs).update(on_epoch_end=on_epoch_end, on_batch_end=on_batch_end)
    monkeypatch.setattr(bus_module, "hookspecs", specs)


@pytest.mark.usefixtures("aged_specs")
def test_implementing_a_deprecated_hook_warns_at_its_line() -> None:
    class Old(Callback):
        def on_epoch_end(self) -> None: ...

    with pytest.warns(DeprecationWarning, match="on_epoch_end goes in") as caught:
        Bus().register(Old())
    assert caught[0].filename == __file__


@pytest.mark.usefixtures("aged_specs")
def test_only_those_who_name_a_deprecated_argument_are_warned() -> None:
    class Old(Callback):
        def on_batch_end(self, batch: int) -> None: ...

    class New(Callback):
        def on_batch_end(self, logs: Any) -> None: ...

    Bus().register(New())
    with pytest.warns(DeprecationWarning, match=r"batch goes in 2\.0"):
        Bus().register(Old())
