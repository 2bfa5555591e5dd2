"""G1, G2, G3: whatever a plugin raises, and wherever, the run ends as promised."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import training
from training import Callback, hookimpl
from training.checkpoint.plugin_states import MISSING
from training.checkpoint_io import read_checkpoint
from training.errors import ConfigError, DataError
from training.hooks.hook_api import SINCE
from training.hookspecs import HOOKS
from training.testing.equality import difference

Make = Callable[..., Any]

ERRORS = (
    *(ValueError, RuntimeError, OSError, KeyError, StopIteration, MemoryError),
    *(ConfigError, DataError, AssertionError, GeneratorExit, SystemExit),
    KeyboardInterrupt,
)
#: Events that fire in a run without an error, whoever else takes part in it.
EVENTS = tuple(hook for hook in HOOKS if hook not in ("on_exception", *SINCE))
TEARDOWN = ("on_exception", "on_close")


class Neighbour(Callback):
    """Keeps track of its own teardown."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_exception(self) -> None:
        self.heard.append("on_exception")

    def on_close(self) -> None:
        self.heard.append("on_close")


def raising(hook: str, error: BaseException, failure: str = "fatal") -> Any:
    """Return a plugin ``bad`` that raises ``error`` in ``hook`` and does nothing."""

    def raise_it(self: Any) -> None:
        raise error

    members = {hook: raise_it, "name": "bad", "failure": failure}
    members["__module__"] = "trainbus_logging.bad"  # as if it came with that one
    return type("Bad", (Callback,), members)()


def trainer_with(tiny_trainer: Make, plugin: Any) -> tuple[Any, Neighbour, Neighbour]:
    """Return a trainer with ``plugin`` between two neighbours."""
    first, last = Neighbour(), Neighbour()
    first.name, last.name = "a", "z"  # type: ignore[misc]
    loaders = {"val_dataloader": [], "metrics": {"val_loss": [1.0]}}
    return tiny_trainer(first, plugin, last, num_epochs=1, **loaders), first, last


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("hook", EVENTS)
def test_an_error_names_plugin_origin_hook_and_step_and_the_others_close(
    hook: str, kind: type[BaseException], tiny_trainer: Make
) -> None:
    error = kind("out of luck")
    trainer, *neighbours = trainer_with(tiny_trainer, raising(hook, error))
    with pytest.raises(kind) as caught:
        trainer.train()
    assert caught.value is error
    (note,) = (text for text in error.__notes__ if text.startswith("raised by"))
    assert "plugin 'bad' (trainbus_logging.bad.Bad, trainbus-logging 0." in note
    assert f"in {hook} at step {trainer.step}" in note
    for neighbour in neighbours:
        assert neighbour.heard[-1] == "on_close"
        assert ("on_exception" in neighbour.heard) == (hook != "on_close")


@pytest.mark.parametrize("kind", [ValueError, OSError, MemoryError, DataError])
@pytest.mark.parametrize("hook", EVENTS)
def test_an_isolated_plugin_changes_neither_the_end_nor_the_weights(
    hook: str,
    kind: type[Exception],
    tiny_trainer: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = raising(hook, kind("out of luck"), "isolate")
    trainer, *_ = trainer_with(tiny_trainer, bad)
    without = tiny_trainer(num_epochs=1)
    trainer.train()
    without.train()
    found = difference(trainer.model.state_dict(), without.model.state_dict())
    assert found == ""
    told = [r for r in caplog.records if "failed in" in r.getMessage()]
    assert len(told) == 1, "warned once"
    assert f"plugin 'bad' failed in {hook}" in told[0].getMessage()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", EVENTS)
def test_isolation_holds_back_no_exit(
    hook: str, kind: type[BaseException], tiny_trainer: Make
) -> None:
    trainer, *_ = trainer_with(tiny_trainer, raising(hook, kind(), "isolate"))
    with pytest.raises(kind):
        trainer.train()


@pytest.mark.parametrize("hook", ["on_setup", "on_train_begin"])
def test_a_refused_setting_ends_the_run_before_it_starts_even_in_isolation(
    hook: str, tiny_trainer: Make
) -> None:
    bad = raising(hook, ConfigError("bad.path is wrong"), "isolate")
    trainer, *_ = trainer_with(tiny_trainer, bad)
    with pytest.raises(ConfigError, match=r"bad\.path"):
        trainer.train()
    assert trainer.step == 0


def test_a_plugin_that_is_switched_off_closes_and_is_called_no_more(
    tiny_trainer: Make,
) -> None:
    heard = []

    class Bad(Callback):
        failure = "isolate"

        def on_step_end(self, trainer: Any) -> None:
            heard.append(trainer.step)
            raise OSError("disk full")

        def on_close(self) -> None:
            heard.append("closed")

    trainer = tiny_trainer(Bad(), num_epochs=2)
    trainer.train()
    assert heard == [1, 2, 3, "closed"]
    assert "Bad" not in trainer.plugins


@pytest.mark.parametrize("place", ["state_dict", "load_state_dict"])
def test_an_error_about_state_names_the_plugin(
    place: str, tiny_trainer: Make, tmp_path: Any
) -> None:
    class Bad(Callback):
        def state_dict(self) -> dict[str, Any]:
            if place == "state_dict":
                raise ValueError("no")
            return {"a": 1}

        def load_state_dict(self, state: Any) -> None:
            raise ValueError("no")

    trainer = tiny_trainer(Bad())
    trainer.train()

    def save_and_resume() -> None:
        trainer.load_checkpoint(trainer.save_checkpoint(tmp_path / "c.pt"))
        trainer.train()

    with pytest.raises(ValueError, match="no") as caught:
        save_and_resume()
    assert "raised by plugin 'Bad'" in caught.value.__notes__[0]
    assert f"in {place}" in caught.value.__notes__[0]


class Forgets(Callback):
    """Counts steps in isolation, and fails at its state where it is told to."""

    failure = "isolate"

    def __init__(self, place: str) -> None:
        self.place = place
        self.steps = 0

    def on_step_end(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        if self.place == "state_dict":
            raise ValueError("no")
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        if self.place == "load_state_dict":
            raise ValueError("no")
        self.steps = state["steps"]


def test_an_isolated_plugin_without_its_state_ends_neither_run_nor_save(
    tiny_trainer: Make, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer(Forgets("state_dict"), Neighbour())
    trainer.train()
    path = trainer.save_checkpoint(tmp_path / "c.pt")
    assert "plugin 'Forgets' failed in state_dict" in caplog.text
    again = tiny_trainer(Forgets(""), Neighbour(), num_epochs=3)
    again.load_checkpoint(path)
    again.train()
    assert "no state of plugin 'Forgets': ValueError('no')" in caplog.text
    assert again.plugins["Forgets"].steps == 4, "those after the resume"


def test_a_state_that_fails_for_good_is_missing_and_not_that_of_an_earlier_run(
    tiny_trainer: Make, tmp_path: Any
) -> None:
    trainer = tiny_trainer(Forgets(""))
    trainer.train()
    path = trainer.save_checkpoint(tmp_path / "c.pt")
    again = tiny_trainer(Forgets("state_dict"), num_epochs=3)
    again.load_checkpoint(path)
    again.train()
    for number in range(4):
        path = again.save_checkpoint(tmp_path / f"{number}.pt")
    assert "Forgets" not in again.plugins
    assert read_checkpoint(path)["plugins"]["Forgets"] == {MISSING: "ValueError('no')"}


def test_an_isolated_plugin_that_cannot_take_its_state_is_switched_off(
    tiny_trainer: Make, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer(Forgets("load_state_dict"))
    trainer.train()
    trainer.load_checkpoint(trainer.save_checkpoint(tmp_path / "c.pt"))
    trainer.train()
    assert "plugin 'Forgets' failed in load_state_dict" in caplog.text
    assert "Forgets" not in trainer.plugins


@pytest.mark.parametrize("hook", TEARDOWN)
def test_the_first_error_is_reported_and_that_of_a_teardown_attached(
    hook: str, tiny_trainer: Make
) -> None:
    first = raising("on_step_end", RuntimeError("first"))
    second = raising(hook, RuntimeError("second"))
    second.name = "worse"
    with pytest.raises(RuntimeError, match="first") as caught:
        tiny_trainer(first, second).train()
    assert f"then {hook} failed: RuntimeError('second')" in caught.value.__notes__


def test_an_error_in_a_wrapper_names_its_plugin(tiny_trainer: Make) -> None:
    class Scope(Callback):
        @hookimpl(wrapper=True)
        def evaluate(self) -> Any:
            yield
            raise RuntimeError("no way back")

    with pytest.raises(RuntimeError, match="no way back") as caught:
        tiny_trainer(Scope()).train()
    assert "raised by plugin 'Scope'" in caught.value.__notes__[0]


def test_a_wrapper_cannot_swallow_an_error(tiny_trainer: Make) -> None:
    class Swallows(Callback):
        @hookimpl(wrapper=True)
        def on_step_end(self) -> Any:
            with contextlib.suppress(RuntimeError):
                yield

    bad = raising("on_step_end", RuntimeError("first"))
    with pytest.raises(RuntimeError, match="first"):
        tiny_trainer(Swallows(), bad).train()


def test_a_run_without_plugins_trains(tiny_trainer: Make) -> None:
    trainer = tiny_trainer(val_dataloader=None)
    before = [weight.clone() for weight in trainer.model.parameters()]
    trainer.train()
    after = list(trainer.model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert dict(trainer.plugins) == {}


def test_the_shipped_observers_are_isolated_and_the_rest_is_fatal() -> None:
    policies = {
        name: getattr(training, name).failure
        for name in training.__all__
        if name.endswith("Callback") and name != "Callback"
    }
    isolated = {name for name, policy in policies.items() if policy == "isolate"}
    assert isolated == {
        "CSVLoggerCallback",
        "ProgressBarCallback",
        "TensorBoardCallback",
    }
