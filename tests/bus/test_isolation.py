"""A plugin that fails in isolation: warned of, switched off, and the run goes on."""

from __future__ import annotations

import logging
from urllib.error import URLError

import pytest
from bus.named import Named, emit

from training import Bus, Callback, PluginError


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


@pytest.mark.parametrize(
    ("error", "level", "lines"),
    [
        pytest.param(RuntimeError("boom"), logging.INFO, True, id="a bug"),
        pytest.param(URLError("no route"), logging.INFO, False, id="a network"),
        pytest.param(PluginError("say where"), logging.INFO, False, id="a sentence"),
        pytest.param(URLError("no route"), logging.DEBUG, True, id="asked for"),
    ],
)
def test_only_a_bug_is_told_with_its_traceback_unless_the_log_is_at_debug(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int, lines: bool
) -> None:
    bus, fails = Bus(), Fails("a")
    fails.error = error
    bus.register(fails)
    with caplog.at_level(level, "training.bus"):
        emit(bus)
    assert ("Traceback" in caplog.text) == lines
    assert f"the run goes on without that call: {error!r}" in caplog.text


def test_an_isolated_plugin_is_switched_off_after_three_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, heard = Bus(), []
    bus.register_all([(None, Fails("a")), (None, Named("b", heard))])
    for _ in range(4):
        emit(bus)
    assert heard == ["b"] * 4
    assert list(bus.plugins) == ["b"]
    why = "on_epoch_end raised RuntimeError('boom')"
    told = f"is switched off as {why}; that was failure 3"
    assert told in caplog.text
    assert bus.failures == {"a": 3}


def test_its_failures_are_counted_for_each_run_by_itself() -> None:
    bus = Bus()
    bus.register(Fails("a"))
    for _ in range(3):
        bus.begin_run(None)
        emit(bus)
        emit(bus)
    assert list(bus.plugins) == ["a"]


def off(bus: Bus) -> None:
    """Let a run switch off whoever fails, and begin the next."""
    bus.begin_run(None)
    for _ in range(3):
        emit(bus)
    assert not bus.plugins


def test_one_that_was_switched_off_is_back_in_the_next_run() -> None:
    bus, fails = Bus(), Fails("a")
    bus.register(fails)
    off(bus)
    off(bus)
    bus.begin_run(None)
    assert bus.plugins == {"a": fails}


def test_one_that_was_switched_off_leaves_its_name_to_who_has_taken_it() -> None:
    bus, other = Bus(), Named("a")
    bus.register(Fails("a"))
    off(bus)
    bus.register(other)
    bus.begin_run(None)
    assert bus.plugins == {"a": other}


def test_a_run_that_it_cannot_come_back_to_is_refused_and_can_be_begun_again() -> None:
    bus, fails = Bus(), Fails("a", after=("b",))
    bus.register(fails)
    off(bus)
    bus.call_all("on_close", trainer=None)
    bus.register(Named("b", after=("a",)))
    for _ in range(2):
        with pytest.raises(PluginError, match="in a circle"):
            bus.begin_run(None)
    bus.unregister("b")
    bus.begin_run(None)
    assert bus.plugins == {"a": fails}


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


def test_an_isolated_answer_that_the_hook_may_not_give_counts_as_no_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Answers(Callback):
        failure = "isolate"

        def evaluate(self) -> dict[str, str]:
            return {"score": "high"}

    bus = Bus()
    bus.register_all([("a", Answers()), (None, Named("b"))])
    assert bus.collect("evaluate", trainer=None, reason="asked") == []
    assert "returned 'high' as metric 'score'; return a number" in caplog.text


def test_an_unknown_failure_policy_is_refused() -> None:
    class Odd(Callback):
        failure = "ignore"

    with pytest.raises(PluginError, match="choose one of: fatal, isolate"):
        Bus().register(Odd())


@pytest.mark.parametrize("is_main", [True, False])
def test_with_other_processes_a_failure_of_one_that_all_call_ends_the_run(
    is_main: bool,
) -> None:
    bus = Bus()
    bus.set_distributed(is_main)
    fails = Fails("a")
    fails.error = OSError("boom")
    bus.register(fails)
    with pytest.raises(OSError, match="boom") as raised:
        emit(bus)
    raiser, why = raised.value.__notes__
    assert raiser.startswith("raised by plugin 'a' (")
    assert "in on_epoch_end" in raiser
    assert why.startswith("plugin 'a' runs on all processes, in step with the others; ")
    assert list(bus.plugins) == ["a"]


@pytest.mark.parametrize("hook", ["on_exception", "on_close"])
def test_with_other_processes_a_failure_as_the_run_ends_is_isolated(hook: str) -> None:
    def fails(self: Callback) -> None:
        raise OSError("boom")

    bus = Bus()
    bus.set_distributed(is_main=False)
    bus.register(type("Ends", (Callback,), {hook: fails, "failure": "isolate"})(), "a")
    given = {"error": KeyError()} if hook == "on_exception" else {}
    assert bus.call_all(hook, trainer=None, **given) == []
    assert bus.failures == {"a": 1}


def test_with_other_processes_one_that_main_alone_calls_stays_isolated() -> None:
    bus, fails = Bus(), Fails("a")
    fails.ranks = "main"
    bus.set_distributed(is_main=True)
    bus.register(fails)
    emit(bus)
    assert bus.failures == {"a": 1}


@pytest.mark.parametrize("failure", ["isolate", "fatal"])
def test_a_plugin_that_asked_is_not_blamed_for_another_one_s_failure(
    failure: str,
) -> None:
    class Asks(Callback):
        def on_epoch_end(self) -> None:
            bus.collect("summary", trainer=None)

    class Broken(Callback):
        hook_api = ">=1.1,<2"

        def summary(self) -> None:
            raise OSError("boom")

    bus, asks = Bus(), Asks()
    asks.failure = failure
    bus.register_all([("asks", asks), ("broken", Broken())])
    for _ in range(4):
        with pytest.raises(OSError, match="boom") as raised:
            emit(bus)
        (note,) = raised.value.__notes__
        assert note.startswith("raised by plugin 'broken' (")
        assert note.endswith("in summary")
    assert bus.failures == {}
    assert list(bus.plugins) == ["asks", "broken"]
