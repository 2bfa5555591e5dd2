"""A wrapper surrounds what the others do in a hook."""

from __future__ import annotations

from bus.named import Named, emit

from training import Bus, hookimpl


def test_a_wrapper_surrounds_events_and_collections() -> None:
    heard: list[str] = []

    class Scope:
        @hookimpl(wrapper=True)
        def on_epoch_end(self):  # type: ignore[no-untyped-def]
            heard.append("in")
            yield
            heard.append("out")

    bus = Bus()
    bus.register(Named("a", heard))
    bus.register(Scope())
    emit(bus)
    assert heard == ["in", "a", "out"]
    assert bus.collect("on_epoch_end", trainer=None, metrics={}) == [("a", None)]
    assert heard == ["in", "a", "out"] * 2
