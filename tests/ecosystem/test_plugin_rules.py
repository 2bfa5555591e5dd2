"""G4 to G6, G12, and the failure policy of plugins."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from training import Bus, Callback, PluginError
from training.discovery.specs import build_plugins

Make = Callable[..., Any]


# G4, G5, G6: what a plugin defines is checked when it is registered.


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

class Misspelt:
    @hookimpl
    def on_step_ends(self): ...

class Unknown(Callback):
    def on_step_end(self, log): ...

class Defaults(Callback):  # which would always win
    def on_step_end(self, trainer, logs=None): ...

class Nearly(Callback):
    def on_step_end(self, trainer, log=None): ...
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
        ("Misspelt", r"marks 'on_step_ends', .* \(did you mean 'on_step_end'\?\)"),
        ("Unknown", r"'log' \(did you mean 'logs'\?\); .*: trainer, logs, applied"),
        ("Defaults", "'logs' of on_step_end a default"),
        ("Nearly", r"'log' \(did you mean 'logs'\?\); .*: trainer, logs, applied"),
    ],
)
def test_a_hook_that_would_never_be_called_as_written_is_refused(
    name: str, words: str
) -> None:
    scope: dict[str, Any] = {"__name__": "lab"}
    exec(KINDS, scope)
    bus = Bus()
    with pytest.raises(PluginError, match=f"plugin '{name}' .*{words}"):
        bus.register(scope[name]())
    assert dict(bus.plugins) == {}


def test_what_a_method_binds_for_itself_beside_the_arguments_is_let_in() -> None:
    class Binds(Callback):
        def on_step_end(self, logs: Any, log: Any = print, num: int = 3) -> None: ...

    Bus().register(Binds())


def test_names_of_metrics_may_be_yielded(tiny_trainer: Make) -> None:
    class Yields(Callback):
        def metric_names(self) -> Any:
            yield "val_loss"

        def evaluate(self) -> dict[str, float]:
            return {"val_loss": 1.0}

    trainer = tiny_trainer(Yields(), num_epochs=1)
    trainer.train()
    assert trainer.metrics.known_names == {"train_loss", "val_loss"}


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


def test_a_callback_of_another_trainer_is_refused_though_hooks_share_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Elsewhere:
        def on_step_end(self, args: Any, state: Any, control: Any) -> None: ...

        def on_substep_end(self, args: Any, state: Any, control: Any) -> None: ...

    told = r"no hook, but on_substep_end \(another trainer's word; here .* derives from"
    with pytest.raises(PluginError, match=told):
        Bus().register(Elsewhere())
    assert caplog.text == ""


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
        failure = "isolate"

        def state_dict(self) -> dict[str, Any]:
            return {"list": [1]}

        def load_state_dict(self, state: Any) -> None:
            state["list"].clear()
            state.clear()
            raise RuntimeError("and chokes")

    trainer = tiny_trainer(Eats())
    trainer.train()
    trainer.load_checkpoint(trainer.save_checkpoint(tmp_path / "c.pt"))
    trainer.train()
    assert trainer.state.carried_states["Eats"] == {"list": [1]}


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
    both = {hook: lambda self: value, "load_state_dict": lambda self, state: None}
    plugin = type("Odd", (Callback,), both)()
    trainer = tiny_trainer(plugin, metrics={"other": [0.0]}, num_epochs=1)
    with pytest.raises(PluginError, match=words):
        trainer.train() if hook != "state_dict" else trainer.save_checkpoint(tmp_path)


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
        "are: filename, every_n_steps",
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
    with pytest.raises(OSError, match="Not a directory") as caught:
        trainer.train()
    (note,) = caught.value.__notes__
    assert re.fullmatch(
        r"raised by plugin 'csv' \(trainbus_logging\.csv_logger\.CSVLoggerCallback, "
        r"trainbus-logging 0\.\S+\) in on_epoch_end at step 4",
        note,
    )
