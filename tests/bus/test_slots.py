"""A slot holds the calls of one hook, as generated code."""

from __future__ import annotations

from bus.named import Named, emit

from training import Bus, Callback
from training.bus.meter import Meter
from training.hookspecs import HOOKS


def test_a_slot_without_a_meter_holds_the_calls_and_nothing_else() -> None:
    class Listens(Callback):
        def on_step_end(self) -> None: ...

    bus = Bus()
    bus.register(Listens())
    plain = bus.on_step_end
    assert plain is not None
    bus.meter = Meter()
    metered = bus.on_step_end
    bus.meter = None
    again = bus.on_step_end
    assert again is not None
    assert metered is not None
    assert again.__code__.co_code == plain.__code__.co_code  # type: ignore[attr-defined]
    assert metered.__code__.co_code != plain.__code__.co_code  # type: ignore[attr-defined]
    assert "m0" not in plain.__code__.co_names  # type: ignore[attr-defined]


def test_a_hook_without_listeners_is_none() -> None:
    bus = Bus()
    assert all(getattr(bus, hook) is None for hook in HOOKS)


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
    class Wraps(Named):
        def wrap_dataloader(self, dataloader: str) -> str | None:
            return None if self.name == "a" else f"{self.name}({dataloader})"

    bus = Bus()
    bus.register_all([(None, Wraps(name)) for name in "cba"])
    assert bus.wrap_dataloader is not None
    assert bus.wrap_dataloader(None, "m", "train") == "b(m)"


def test_call_all_reaches_everybody_and_returns_the_errors() -> None:
    class Bad(Named):
        def on_epoch_end(self) -> None:
            raise SystemExit(3)

    bus, heard = Bus(), []
    bus.register_all([(None, Bad("a")), (None, Named("b", heard))])
    errors = bus.call_all("on_epoch_end", trainer=None, metrics={})
    assert [type(error) for error in errors] == [SystemExit]
    assert heard == ["b"]
