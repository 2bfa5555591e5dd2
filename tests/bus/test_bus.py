"""Registration, order, slots and blame."""

from __future__ import annotations

import itertools

import pytest

from training import Bus, Callback, PluginError, hookimpl
from training.bus.meter import Meter
from training.hookspecs import HOOKS


class Named(Callback):
    """Listens to one event and writes its name down."""

    def __init__(
        self,
        name: str,
        heard: list[str] | None = None,
        before: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.before = before  # type: ignore[misc]
        self.after = after  # type: ignore[misc]
        self.heard = [] if heard is None else heard

    def on_epoch_end(self) -> None:
        self.heard.append(str(self.name))


def emit(bus: Bus) -> None:
    assert bus.on_epoch_end is not None
    bus.on_epoch_end(None, {})


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


@pytest.mark.parametrize("arrival", list(itertools.permutations("abc")))
def test_ties_are_broken_by_name_whatever_the_order_of_arrival(
    arrival: tuple[str, ...],
) -> None:
    bus, heard = Bus(), []
    for name in arrival:
        bus.register(Named(name, heard))
    emit(bus)
    assert heard == ["a", "b", "c"]


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))))
def test_before_and_after_beat_the_alphabet(arrival: tuple[int, ...]) -> None:
    bus, heard = Bus(), []
    plugins = [
        Named("a", heard, after=("b",)),
        Named("b", heard),
        Named("c", heard, before=("b", "absent")),
    ]
    bus.register_all([(None, plugins[index]) for index in arrival])
    emit(bus)
    assert heard == ["c", "b", "a"]
    assert bus.order_reasons == {
        ("b", "a"): "'a' declares after 'b'",
        ("c", "b"): "'c' declares before 'b'",
    }


def test_an_order_that_runs_in_a_circle_is_refused_and_changes_nothing() -> None:
    bus = Bus()
    bus.register(Named("a", after=("b",)))
    with pytest.raises(PluginError, match=r"run in a circle: .*a.*b"):
        bus.register(Named("b", after=("a",)))
    assert list(bus.plugins) == ["a"]


def test_two_plugins_of_one_name_are_refused_naming_both() -> None:
    bus = Bus()
    bus.register(Named("a"))
    with pytest.raises(PluginError, match=r"two plugins are named 'a': .*Named and"):
        bus.register(Named("a"))


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


def test_the_first_service_result_wins() -> None:
    class Wraps(Named):
        def wrap_dataloader(self, dataloader: str) -> str | None:
            return None if self.name == "a" else f"{self.name}({dataloader})"

    bus = Bus()
    bus.register_all([(None, Wraps(name)) for name in "cba"])
    assert bus.wrap_dataloader is not None
    assert bus.wrap_dataloader(None, "m", "train") == "b(m)"


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


def test_call_all_reaches_everybody_and_returns_the_errors() -> None:
    class Bad(Named):
        def on_epoch_end(self) -> None:
            raise SystemExit(3)

    bus, heard = Bus(), []
    bus.register_all([(None, Bad("a")), (None, Named("b", heard))])
    errors = bus.call_all("on_epoch_end", trainer=None, metrics={})
    assert [type(error) for error in errors] == [SystemExit]
    assert heard == ["b"]


class Fails(Named):
    """Raises whenever it is called, and asks to be isolated."""

    failure = "isolate"
    error: BaseException = RuntimeError("boom")

    def on_epoch_end(self) -> None:
        raise self.error


def test_an_isolated_failure_warns_once_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, heard = Bus(), []
    bus.register_all([(None, Fails("a")), (None, Named("b", heard))])
    emit(bus)
    emit(bus)
    assert heard == ["b", "b"]
    assert caplog.text.count("plugin 'a' failed in on_epoch_end") == 1


def test_an_isolated_plugin_is_switched_off_after_three_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, heard = Bus(), []
    bus.register_all([(None, Fails("a")), (None, Named("b", heard))])
    for _ in range(4):
        emit(bus)
    assert heard == ["b"] * 4
    assert list(bus.plugins) == ["b"]
    assert "failed 3 times and is switched off" in caplog.text
    assert bus.failures == {"a": 3}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_isolation_does_not_hold_back_an_exit(error: BaseException) -> None:
    bus, fails = Bus(), Fails("a")
    fails.error = error
    bus.register(fails)
    with pytest.raises(type(error)):
        emit(bus)


def test_an_isolated_failure_in_a_collection_counts_as_no_result() -> None:
    bus = Bus()
    bus.register_all([(None, Fails("a")), (None, Named("b"))])
    assert bus.collect("on_epoch_end", trainer=None, metrics={}) == [("b", None)]


def test_an_unknown_failure_policy_is_refused() -> None:
    class Odd(Callback):
        failure = "ignore"

    with pytest.raises(PluginError, match="choose one of: fatal, isolate"):
        Bus().register(Odd())


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
