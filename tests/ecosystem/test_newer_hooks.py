"""Hooks that came after 1.0: old plugins keep their names, new ones are asked."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from training import Bus, Callback, PluginError, hookimpl
from training.discovery.sources import read_class


class Finds(Callback):
    """Written for 1.0, where a method of this name is its own affair."""

    hook_api: ClassVar[str | None] = ">=1.0,<2"

    def find_checkpoint(self, folder: str, pattern: str = "*.pt") -> None: ...


@pytest.mark.parametrize("hook_api", [">=1.0,<2", ">=1", None])
def test_a_plugin_for_1_0_keeps_a_method_that_has_the_name_of_a_newer_hook(
    hook_api: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus()
    bus.register(type("Old", (Finds,), {"hook_api": hook_api})())
    assert bus.find_checkpoint is None
    assert "'find_checkpoint', which is a hook since API 1.1" in caplog.text
    assert read_class(__name__, "Finds", Path(__file__)).hooks == ()


@pytest.mark.parametrize("hook_api", [">=1.1,<2", "~=1.1"])
def test_one_for_1_1_means_the_hook(hook_api: str) -> None:
    plugin = type("Newer", (Finds,), {"hook_api": hook_api})()
    with pytest.raises(PluginError, match="find_checkpoint has no argument 'folder'"):
        Bus().register(plugin)


def test_a_value_under_the_name_of_a_newer_hook_is_no_hook_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hears = {"on_step_end": lambda self: None}
    Bus().register(type("Old", (Callback,), {"summary": {"loss": 1.0}, **hears})())
    assert caplog.text == ""


def test_hookimpl_means_the_hook_whatever_the_range_is() -> None:
    class Marked(Finds):
        @hookimpl
        def find_checkpoint(self, step: int) -> None: ...  # type: ignore[override]

    bus = Bus()
    bus.register(Marked())
    assert bus.find_checkpoint is not None
