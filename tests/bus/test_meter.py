"""What a meter books, for each plugin and hook."""

from __future__ import annotations

from bus.named import Named, emit

from training import Bus
from training.bus.meter import Meter


def test_a_meter_books_calls_and_time_for_each_plugin() -> None:
    bus, meter = Bus(), Meter(keep_events=True)
    bus.register_all([(None, Named("a")), (None, Named("b"))])
    plain = bus.on_epoch_end
    bus.meter = meter
    emit(bus)
    emit(bus)
    bus.collect("on_epoch_end", trainer=None, metrics={})
    assert {(p, h): c.calls for p, h, c in meter.table()} == {
        ("a", "on_epoch_end"): 3,
        ("b", "on_epoch_end"): 3,
    }
    assert all(cost.seconds > 0 for _, _, cost in meter.table())
    assert len(meter.trace()["traceEvents"]) == 6
    bus.meter = None
    assert bus.on_epoch_end is not plain
    emit(bus)
    assert len(meter.events) == 6
