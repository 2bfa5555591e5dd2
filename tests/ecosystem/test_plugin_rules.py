"""G4 to G6, G11 to G14, and the failure policy, version and cost of plugins."""

from __future__ import annotations

import inspect
import json
import random
import re
import shutil
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from training import Bus, Callback, PluginError, Trainer, hookimpl, hookspecs
from training.app.prove.profile import cost_table, profiled
from training.bus import bus as bus_module
from training.bus.meter import Meter
from training.bus.syncs import WARNING
from training.discovery.specs import build_plugins
from training.hook_api import SINCE
from training.testing.equality import run_difference
from training.testing.runs import tiny_trainer as make_trainer

Make = Callable[..., Any]


# G4, G5, G6: what a plugin defines is checked when it is registered.


def test_a_misspelt_hook_is_refused_with_the_near_one() -> None:
    class Typo:
        @hookimpl
        def on_step_ends(self) -> None: ...

    with pytest.raises(
        PluginError, match=r"marks 'on_step_ends', .* \(did you mean 'on_step_end'\?\)"
    ):
        Bus().register(Typo())


def test_an_unknown_argument_is_refused_naming_the_plugin_and_the_known_ones() -> None:
    class Typo(Callback):
        def on_step_end(self, log: Any) -> None: ...

    with pytest.raises(
        PluginError,
        match=r"'Typo'.*'log' \(did you mean 'logs'\?\); .*: trainer, logs, applied",
    ):
        Bus().register(Typo())


def test_an_argument_with_a_default_is_refused_since_it_would_always_win() -> None:
    class Defaults(Callback):
        def on_step_end(self, trainer: Any, logs: Any = None) -> None: ...

    with pytest.raises(PluginError, match="'logs' of on_step_end a default"):
        Bus().register(Defaults())


def test_an_argument_of_ones_own_may_have_a_default() -> None:
    class Own(Callback):
        def on_step_end(self, trainer: Any, every: int = 5) -> None: ...

    assert Bus().register(Own()) == "Own"


@pytest.mark.parametrize(
    ("misspelt", "right"), [("evalute", "evaluate"), ("wrap_modle", "wrap_model")]
)
def test_a_method_that_is_nearly_a_hook_is_warned_of(
    misspelt: str, right: str, caplog: pytest.LogCaptureFixture
) -> None:
    Bus().register(type("Typo", (Callback,), {misspelt: lambda self: None})())
    assert f"'Typo' has a method '{misspelt}', which is no hook" in caplog.text
    assert f"did you mean '{right}'?" in caplog.text
    caplog.clear()
    both = {misspelt: lambda self: None, right: lambda self: None}
    Bus().register(type("Knows", (Callback,), both)())
    assert caplog.text == ""


KINDS = """
import functools
from training import Callback, hookimpl

class Awaits(Callback):
    async def on_step_end(self): ...

class AwaitsAll(Callback):
    async def on_step_end(self):
        yield

class Old(Callback):
    @hookimpl(hookwrapper=True)
    def on_step_end(self):
        yield

class Yields(Callback):
    def on_step_end(self):
        yield

class AroundClose(Callback):
    @hookimpl(wrapper=True)
    def on_close(self):
        yield

class AroundException(Callback):
    @hookimpl(wrapper=True)
    def on_exception(self):
        yield

class First(Callback):
    before = ("Yields",)
    @hookimpl(tryfirst=True)
    def on_step_end(self): ...

class Keyword(Callback):
    def on_step_end(self, trainer, *, logs): ...
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Awaits", "on_step_end is `async def`, which nobody awaits; write `def`"),
        ("AwaitsAll", "on_step_end is `async def`, which nobody awaits; write `def`"),
        ("Old", "on_step_end says hookwrapper=True; write wrapper=True and yield once"),
        ("Yields", r"on_step_end yields; mark it with @hookimpl\(wrapper=True\), or"),
        ("AroundClose", "on_close cannot be wrapped, it is for cleaning up; listen"),
        ("AroundException", "on_exception cannot be wrapped, it is for cleaning up"),
        ("First", "on_step_end says tryfirst; the order is declared with `before` and"),
        ("Keyword", "on_step_end takes 'logs' by keyword only, .* remove the `\\*`"),
    ],
)
def test_a_hook_that_would_never_be_called_as_written_is_refused(
    name: str, words: str
) -> None:
    scope: dict[str, Any] = {"__name__": "lab"}
    exec(KINDS, scope)
    bus = Bus()
    with pytest.raises(PluginError, match=f"plugin '{name}' does not fit .*{words}"):
        bus.register(scope[name]())
    assert dict(bus.plugins) == {}


def test_names_of_metrics_may_be_yielded(tiny_trainer: Make) -> None:
    class Yields(Callback):
        def metric_names(self) -> Any:
            yield "val_loss"

        def evaluate(self) -> dict[str, float]:
            return {"val_loss": 1.0}

    trainer = tiny_trainer(Yields(), num_epochs=1)
    trainer.train()
    assert trainer.metrics.known_names == {"train_loss", "val_loss"}


# The declared order.


@pytest.mark.parametrize("value", ["csv", 5, None, (1,), [["csv"]]])
@pytest.mark.parametrize("key", ["before", "after"])
def test_a_relation_that_is_no_tuple_of_names_is_refused(key: str, value: Any) -> None:
    plugin = type("Lab", (Callback,), {key: value})()
    with pytest.raises(PluginError) as caught:
        Bus().register(plugin)
    told = f"declares {key} = {value!r}; write names in a tuple: ('csv',)"
    assert told in str(caught.value)


def test_a_relation_to_a_name_that_looks_misspelt_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = type("First", (Callback,), {"before": ("secnod", "elsewhere")})()
    second = type("Second", (Callback,), {"name": "second"})()
    bus = Bus()
    bus.register_all([(None, first), (None, second)])
    bus.register(Callback(), "third")
    told = [r.getMessage() for r in caplog.records]
    assert told == [
        "plugin 'First' declares before 'secnod', which is not there (did you mean "
        "'second'?)"
    ]


def test_a_method_without_its_mark_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unmarked:
        def on_step_end(self) -> None: ...

        def evaluate(self) -> None:
            """Many an object has a method of this name."""

    Bus().register(Unmarked())
    assert "'Unmarked' defines on_step_end, which is not marked" in caplog.text
    assert caplog.text.count("not marked") == 1


# G11 and deprecation: versions of the hook API.


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


# G12: what is given is read-only, what is returned is checked.


@pytest.mark.parametrize(
    ("hook", "argument"),
    [
        ("on_batch_end", "logs"),
        ("on_step_end", "logs"),
        ("on_metrics", "metrics"),
        ("on_epoch_end", "metrics"),
    ],
)
def test_logs_and_metrics_cannot_be_changed(
    hook: str, argument: str, tiny_trainer: Make
) -> None:
    scope: dict[str, Any] = {}
    exec(f"def {hook}(self, {argument}): {argument}['loss'] = 0.0", scope)
    plugin = type("Writes", (Callback,), {hook: scope[hook]})()
    with pytest.raises(TypeError, match="does not support item assignment") as caught:
        tiny_trainer(plugin).train()
    assert "raised by plugin 'Writes'" in caught.value.__notes__[0]


def test_history_and_requests_are_not_for_plugins_to_change(
    tiny_trainer: Make,
) -> None:
    class Writes(Callback):
        def on_epoch_end(self, trainer: Any) -> None:
            trainer.history[-1]["train_loss"] = 0.0
            trainer.history.clear()

        def on_step_end(self, trainer: Any) -> None:
            trainer.request_checkpoint("a wish")
            assert isinstance(trainer.requests, tuple)

    trainer = tiny_trainer(Writes(), num_epochs=2)
    trainer.train()
    assert [row["epoch"] for row in trainer.history] == [1, 2]
    assert all(row["train_loss"] > 0 for row in trainer.history)
    assert {request.owner for request in trainer.requests} == {"Writes"}
    with pytest.raises(AttributeError):
        trainer.history = []


def test_a_plugin_gets_its_own_copy_of_restored_state(
    tiny_trainer: Make, tmp_path: Any
) -> None:
    class Eats(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"list": [1]}

        def load_state_dict(self, state: Any) -> None:
            state["list"].clear()
            state.clear()

    trainer = tiny_trainer(Eats())
    trainer.train()
    trainer.load_checkpoint(trainer.save_checkpoint(tmp_path / "c.pt"))
    trainer.train()
    assert trainer.carried_states["Eats"] == {"list": [1]}


@pytest.mark.parametrize(
    ("hook", "value", "words"),
    [
        ("evaluate", 3, "'Odd' returned int from evaluate"),
        ("evaluate", {"a": "b"}, "'Odd' returned 'b' as metric 'a'"),
        ("evaluate", {"a": "1.0"}, "'Odd' returned '1.0' as metric 'a'"),
        ("evaluate", {"a": True}, "'Odd' returned True as metric 'a'"),
        ("evaluate", {"a": None}, "'Odd' returned None as metric 'a'"),
        ("evaluate", {"a": torch.ones(2)}, "'Odd' returned tensor.* as metric 'a'"),
        ("evaluate", {1: 2.0}, "'Odd' returned a metric named 1; use a text"),
        ("evaluate", {"epoch": 2.0}, "'Odd' returned a metric named 'epoch'; use"),
        ("metric_names", "val_loss", "'Odd' returned 'val_loss' from metric_names"),
        ("metric_names", [1], r"'Odd' returned \[1\] from metric_names"),
        ("wrap_model", "ddp", "'Odd' returned str from wrap_model"),
        ("state_dict", [1], "'Odd' returned list from state_dict"),
    ],
)
def test_a_result_of_the_wrong_type_is_refused_naming_the_plugin(
    hook: str, value: Any, words: str, tiny_trainer: Make, tmp_path: Any
) -> None:
    plugin = type("Odd", (Callback,), {hook: lambda self: value})()
    trainer = tiny_trainer(plugin, metrics={"other": [0.0]}, num_epochs=1)
    with pytest.raises(PluginError, match=words):
        trainer.train() if hook != "state_dict" else trainer.save_checkpoint(tmp_path)


# G13: equal selections give equal runs, whatever the order of arrival.


def test_50_shuffles_of_arrival_give_equal_runs(tmp_path: Any) -> None:
    specs: list[Any] = [
        {"lr_scheduling": {"type": "cosine"}},
        {"checkpointing": {"every_n_steps": 3}},
        {"early_stopping": {"patience": 1}},
        {"progress": {"verbose": 0}},
        "csv",
    ]

    class Halves(Callback):
        name = "halves"
        after = ("doubles_and_adds",)

        def on_before_step(self, trainer: Any) -> None:
            for weight in trainer.model.parameters():
                weight.grad.mul_(0.5)

    class Adds(Halves):
        name = "doubles_and_adds"
        after = ()

        def on_before_step(self, trainer: Any) -> None:
            for weight in trainer.model.parameters():
                weight.grad.mul_(2).add_(0.1)

    def run(number: int) -> Trainer:
        shuffle = random.Random(number)
        instances = [Halves(), Adds(), *(plugin for _, plugin in build_plugins(specs))]
        shuffle.shuffle(instances)
        trainer = make_trainer(*instances, save_dir=tmp_path / str(number))
        trainer.train()
        return trainer

    first = run(0)
    order = list(first.plugins)
    for number in range(1, 50):
        again = run(number)
        assert list(again.plugins) == order
        assert run_difference(again, first, "early_stopping") == ""


SCALES = """
from training import Callback

class Scales(Callback):
    name, after = {name!r}, {after!r}

    def on_before_step(self, trainer):
        for weight in trainer.model.parameters():
            weight.grad.mul_({factor}).add_({term})
"""


def test_50_shuffles_of_installation_give_equal_runs(
    install: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, after, factor, term in (
        ("first", ("second",), 0.5, 0.0),
        ("second", (), 2.0, 0.1),
        ("third", ("first",), 1.0, 0.2),
        ("fourth", (), 3.0, 0.3),
    ):
        source = SCALES.format(name=name, after=after, factor=factor, term=term)
        install(f"scales-{name}", f"{name} = scales_{name}:Scales", source)
    names = ["first", "second", "third", "fourth"]

    def run(number: int) -> Trainer:
        shuffle = random.Random(number)
        path = list(sys.path)
        shuffle.shuffle(path)
        monkeypatch.setattr(sys, "path", path)
        listed = shuffle.sample(names, len(names))
        trainer = make_trainer(
            plugins=listed, num_epochs=1, num_batches=2, save_dir=tmp_path / "run"
        )
        trainer.train()
        return trainer

    first = run(0)
    order = list(first.plugins)
    assert [name for name in order if name in names] == [
        *("fourth", "second", "first", "third")
    ]
    for number in range(1, 50):
        again = run(number)
        assert list(again.plugins) == order
        assert run_difference(again, first, "first") == ""


def test_the_same_plugin_takes_part_twice_under_two_ids(tmp_path: Any) -> None:
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    pairs = build_plugins(
        [{"csv": {"filename": files[0]}}, {"csv": {"filename": files[1], "id": "two"}}]
    )
    trainer = make_trainer(plugins=pairs, save_dir=tmp_path, num_epochs=1)
    trainer.train()
    assert {"csv", "two"} <= set(trainer.plugins)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


# The failure policy of a configuration.


@pytest.mark.parametrize("policy", ["fatal", "isolate"])
def test_the_configuration_has_the_last_word_on_the_failure_policy(policy: str) -> None:
    ((_, csv),) = build_plugins([{"csv": {"on_failure": policy}}])
    ((_, stopping),) = build_plugins([{"early_stopping": {"on_failure": policy}}])
    assert (csv.failure, stopping.failure) == (policy, policy)


def test_mistakes_in_policy_and_options_come_together_with_their_places() -> None:
    with pytest.raises(PluginError) as caught:
        build_plugins([{"csv": {"on_failure": "ignore", "file_name": "a"}}])
    assert str(caught.value).splitlines() == [
        "plugins.csv.file_name is no option (did you mean 'filename'?); the options "
        "are: filename",
        "plugins.csv.on_failure is 'ignore'; choose one of: fatal, isolate",
    ]


def test_an_error_names_class_distribution_and_version(tiny_trainer: Make) -> None:
    ((name, csv),) = build_plugins([{"csv": {"on_failure": "fatal"}}])
    trainer = tiny_trainer(plugins=[(name, csv)], num_epochs=1)

    class TakesTheFolder(Callback):
        name = "a"

        def on_epoch_end(self, trainer: Any) -> None:
            shutil.rmtree(csv.path.parent)
            csv.path.parent.touch()

    trainer.bus.register(TakesTheFolder())
    with pytest.raises(OSError, match="File exists") as caught:
        trainer.train()
    (note,) = caught.value.__notes__
    assert re.fullmatch(
        r"raised by plugin 'csv' \(trainbus_logging\.csv_logger\.CSVLoggerCallback, "
        r"trainbus-logging 0\.\S+\) in on_epoch_end at step 4",
        note,
    )


# G14 and the profile: nothing is paid that was not ordered.


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


def test_a_profile_has_a_row_for_each_hook_and_one_event_for_each_call(
    tiny_trainer: Make, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wraps(Callback):
        @hookimpl(wrapper=True)
        def evaluate(self) -> Any:
            yield

    class Listens(Callback):
        def on_step_end(self) -> None: ...

    trainer = tiny_trainer(Wraps(), Listens(), num_epochs=1, num_batches=4)
    with profiled(trainer, False, tmp_path / "trace.json"):
        trainer.train()
    printed = capsys.readouterr().out
    assert "Listens" in printed
    assert "all plugins: " in printed
    assert "syncs" not in printed, "a CPU has none to count"
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in trace]
    assert names.count("Listens.on_step_end") == 4
    assert names.count("Wraps.evaluate") == 2  # going in and coming out
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in trace)
    assert trainer.bus.meter is None


def test_a_synchronisation_is_booked_to_the_plugin_that_caused_it(
    tiny_trainer: Make, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU the warning that torch gives on CUDA is given by hand."""

    class Waits(Callback):
        def on_step_end(self) -> None:
            warnings.warn(WARNING, stacklevel=1)

    class Speaks(Callback):
        def on_epoch_end(self) -> None:
            warnings.warn("something else", stacklevel=1)

    trainer = tiny_trainer(Waits(), Speaks(), num_epochs=1, num_batches=4)
    meters = []

    def profile() -> None:
        with profiled(trainer, True, tmp_path / "trace.json"):
            meters.append(trainer.bus.meter)
            trainer.train()

    with pytest.warns(UserWarning, match="something else") as caught:
        profile()
    (meter,) = meters
    assert [str(each.message) for each in caught] == ["something else"]
    assert {(p, h): c.syncs for p, h, c in meter.table() if c.syncs} == {
        ("Waits", "on_step_end"): 4
    }
    assert cost_table(meter, 1.0)[0].endswith("syncs")
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    waits = [event["name"] for event in trace if event["args"]["syncs"]]
    assert waits == ["Waits.on_step_end"] * 4
    capsys.readouterr()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_reading_the_loss_is_a_synchronisation_of_its_reader(
    tmp_path: Any,
) -> None:
    class Reads(Callback):
        def on_step_end(self, logs: Any) -> None:
            float(logs["loss"])

    trainer = make_trainer(Reads(), save_dir=tmp_path, device="cuda")
    with profiled(trainer, True):
        trainer.train()
        meter = trainer.bus.meter
    assert meter is not None
    syncs = {(p, h): c.syncs for p, h, c in meter.table() if c.syncs}
    assert syncs[("Reads", "on_step_end")] == 8
