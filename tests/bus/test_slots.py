"""A slot holds the calls of one hook, as generated code."""

from __future__ import annotations

from types import CodeType, MemberDescriptorType
from typing import Any

import pytest
from bus.named import Named, emit

from training import Bus, Callback
from training.bus.meter import Meter
from training.hookspecs import HOOKS


def compiled(bus: Bus, hook: str, *arguments: Any) -> CodeType:
    """Return what a hook is compiled to, which its first call does."""
    getattr(bus, hook)(*arguments)
    code: CodeType = getattr(bus, hook).__code__
    return code


def test_a_slot_without_a_meter_holds_the_calls_and_nothing_else() -> None:
    class Listens(Callback):
        def on_step_end(self) -> None: ...

    bus = Bus()
    bus.register(Listens())
    plain = compiled(bus, "on_step_end", None, {}, True)
    bus.meter = Meter()
    metered = compiled(bus, "on_step_end", None, {}, True)
    bus.meter = None
    again = compiled(bus, "on_step_end", None, {}, True)
    assert again.co_code == plain.co_code
    assert metered.co_code != plain.co_code
    assert "m0" not in plain.co_names


def test_a_hook_without_listeners_is_none() -> None:
    bus = Bus()
    assert all(getattr(bus, hook) is None for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_slot_is_found_without_a_dict_or_a_call(hook: str) -> None:
    bus = Bus()
    bus.register(Named("a"))
    assert isinstance(getattr(Bus, hook), MemberDescriptorType)
    assert hook not in vars(bus)
    assert not hasattr(Bus, "__getattr__")  # any makes each look-up slow


def test_a_slot_is_compiled_once_after_a_change() -> None:
    bus = Bus()
    bus.register(Named("a"))
    first = compiled(bus, "on_epoch_end", None, {})
    assert compiled(bus, "on_epoch_end", None, {}) is first
    bus.register(Named("b"))
    assert compiled(bus, "on_epoch_end", None, {}) is not first


def test_a_slot_that_was_kept_follows_changes_before_its_first_call() -> None:
    bus, heard = Bus(), []
    bus.register(Named("a", heard))
    kept = bus.on_epoch_end
    assert kept is not None
    bus.register(Named("b", heard))
    kept(None, {})
    assert heard == ["a", "b"]
    bus.unregister("a")
    bus.unregister("b")
    kept(None, {})
    assert heard == ["a", "b"]


def test_a_slot_follows_registration_and_unregistration() -> None:
    bus = Bus()
    bus.register(Named("a"))
    assert bus.on_epoch_end is not None
    assert bus.on_batch_end is None
    bus.unregister("a")
    assert bus.on_epoch_end is None


def test_a_plugin_registered_inside_a_call_hears_the_next_event() -> None:
    bus, heard = Bus(), []

    class Host(Callback):
        def on_epoch_end(self) -> None:
            if "late" not in bus.plugins:
                bus.register(Named("late", heard))

    bus.register(Host())
    emit(bus)
    assert heard == []
    emit(bus)
    assert heard == ["late"]


def test_a_listener_gets_the_arguments_it_names() -> None:
    seen = []

    class Picky(Callback):
        def on_batch_end(self, logs: object, batch: int, **kwargs: object) -> None:
            seen.append((logs, batch, kwargs))

    bus = Bus()
    bus.register(Picky())
    assert bus.on_batch_end is not None
    bus.on_batch_end("trainer", 7, {"loss": 1.0})
    assert seen == [({"loss": 1.0}, 7, {})]


def test_the_first_service_result_wins() -> None:
    class Finds(Named):
        hook_api = ">=1.1,<2"

        def find_checkpoint(self, step: int) -> str | None:
            return None if self.name == "a" else f"{self.name}-{step}"

    bus = Bus()
    bus.register_all([(None, Finds(name)) for name in "cba"])
    assert bus.find_checkpoint is not None
    assert str(bus.find_checkpoint(None, 3)) == "b-3"


def test_call_all_reaches_everybody_and_returns_the_errors() -> None:
    class Bad(Named):
        def on_epoch_end(self) -> None:
            raise SystemExit(3)

    bus, heard = Bus(), []
    bus.register_all([(None, Bad("a")), (None, Named("b", heard))])
    errors = bus.call_all("on_epoch_end", trainer=None, metrics={})
    assert [type(error) for error in errors] == [SystemExit]
    assert heard == ["b"]


def test_two_buses_with_like_plugins_share_code_and_nothing_else() -> None:
    class Raises(Named):
        def on_epoch_end(self) -> None:
            raise ValueError(self.name)

    buses = [Bus(), Bus()]
    for bus, name in zip(buses, "ab", strict=True):
        bus.register(Raises(name))
    one, other = (late_code(bus) for bus in buses)
    assert one is other
    for bus, name in zip(buses, "ab", strict=True):
        with pytest.raises(ValueError, match=rf"^{name}\b") as raised:
            emit(bus)
        assert f"plugin '{name}'" in raised.value.__notes__[0]
    kept = buses[0].on_epoch_end
    buses[0].unregister("a")
    assert kept is not None
    kept(None, {})  # silenced, and only there
    with pytest.raises(ValueError, match=r"^b\b"):
        emit(buses[1])


def late_code(bus: Bus) -> CodeType:
    with pytest.raises(ValueError, match=r"^[ab]\b"):
        emit(bus)
    slot: Any = bus.on_epoch_end
    code: CodeType = slot.__code__
    return code
