"""Who is let in, and who is blamed."""

from __future__ import annotations

import pytest
from bus.named import Named, emit

from training import Bus, Callback, PluginError, hookimpl


def test_two_plugins_of_one_name_are_refused_naming_both() -> None:
    bus = Bus()
    bus.register(Named("a"))
    second = Named("a")
    with pytest.raises(PluginError, match=r"two plugins are named 'a': .*Named and"):
        bus.register(second)
    second.name = "b"  # type: ignore[misc]  # as the sentence says
    assert bus.register(second) == "b"


def test_a_class_instead_of_an_instance_is_refused() -> None:
    with pytest.raises(PluginError, match=r"Named is a class; pass an instance"):
        Bus().register(Named)


def test_a_misspelt_hook_is_refused_with_the_near_one() -> None:
    class Typo(Callback):
        def on_epoch_ended(self) -> None: ...

    with pytest.raises(PluginError, match=r"'on_epoch_ended'.*mean 'on_epoch_end'\?"):
        Bus().register(Typo())


def test_an_unknown_argument_is_refused() -> None:
    class Typo(Callback):
        def on_epoch_end(self, metric: object) -> None: ...

    bus = Bus()
    with pytest.raises(PluginError, match=r"'Typo' does not fit.*metric"):
        bus.register(Typo())
    assert not bus.plugins


def test_unregistering_an_unknown_name_suggests_a_near_one() -> None:
    bus = Bus()
    bus.register(Named("logger"))
    with pytest.raises(PluginError, match="did you mean 'logger'"):
        bus.unregister("loger")


def test_a_plain_class_takes_part_through_hookimpl() -> None:
    heard = []

    class Plain:
        @hookimpl
        def on_epoch_end(self) -> None:
            heard.append("plain")

        def on_epoch_begin(self) -> None:
            heard.append("unmarked")

    bus = Bus()
    bus.register(Plain())
    emit(bus)
    assert heard == ["plain"]
    assert bus.on_epoch_begin is None


def test_an_error_carries_the_name_of_the_one_who_raised() -> None:
    class Bad(Named):
        def on_epoch_end(self) -> None:
            raise ValueError("no")

    bus, heard = Bus(), []
    bus.register_all([(None, Named("a", heard)), (None, Bad("b")), (None, Named("c"))])
    with pytest.raises(ValueError, match="no") as caught:
        emit(bus)
    assert heard == ["a"]
    assert "raised by plugin 'b'" in caught.value.__notes__[0]
    assert "in on_epoch_end" in caught.value.__notes__[0]
