"""Where a request is granted, whose it is, and how many of them are kept."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import make_trainer, regression_batches

from training import Callback, ConfigError, Trainer, hookimpl
from training.bus.meter import Meter
from training.loop.requests import MOST_REQUESTS

BEFORE_TRAINING = ["wrap_model", "wrap_dataloader", "on_setup", "metric_names"]
BEFORE_TRAINING += ["on_train_begin", "on_epoch_begin"]
IN_A_WINDOW = ["on_batch_begin", "on_batch_end", "on_before_step", "on_step_end"]
AT_AN_EPOCHS_END = ["evaluate", "on_metrics", "on_epoch_end", "on_checkpoint"]
TOO_LATE = ["on_train_end", "on_close"]
BOUNDARY = {
    **dict.fromkeys(BEFORE_TRAINING, (0, 0)),
    **dict.fromkeys(IN_A_WINDOW, (0, 1)),
    **dict.fromkeys(AT_AN_EPOCHS_END, (1, 2)),
    **dict.fromkeys(TOO_LATE, None),
}


def asks_in(hook: str, ask: Callable[[Trainer], None], times: int = 1) -> Callback:
    """Return a plugin ``Asks`` that asks in its first calls of ``hook``."""
    left = [times]

    def method(self: Callback, trainer: Trainer) -> None:
        if left[0]:
            left[0] -= 1
            ask(trainer)

    return type("Asks", (Callback,), {hook: method})()


class Granted(Callback):
    """Notes (epoch, step) of all that is granted for a reason that says "please"."""

    def __init__(self) -> None:
        self.places: dict[str, list[tuple[int, int]]] = {}

    def note(self, kind: str, trainer: Trainer, reason: str) -> None:
        if "please" in reason:
            self.places.setdefault(kind, []).append((trainer.epoch, trainer.step))

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float]:
        self.note("evaluation", trainer, reason)
        return {"val_loss": 1.0}

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        self.note("checkpoint", trainer, reason)


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
@pytest.mark.parametrize(("hook", "place"), BOUNDARY.items())
def test_a_request_is_granted_once_at_the_next_boundary(
    hook: str, kind: str, place: tuple[int, int] | None
) -> None:
    asks = asks_in(hook, lambda trainer: getattr(trainer, f"request_{kind}")("please"))
    granted = Granted()
    trainer = make_trainer(None, regression_batches(2), asks, granted, num_epochs=2)
    trainer.train()
    assert granted.places == ({kind: [place]} if place else {})
    assert [(r.kind, r.owner) for r in trainer.requests] == [(kind, "Asks")]


@pytest.mark.parametrize(("hook", "place"), BOUNDARY.items())
def test_a_stop_ends_the_run_at_the_next_boundary(
    hook: str, place: tuple[int, int] | None
) -> None:
    asks = asks_in(hook, lambda trainer: trainer.request_stop("enough"))
    trainer = make_trainer(None, regression_batches(2), asks, num_epochs=2)
    trainer.train()
    assert (trainer.epoch, trainer.step) == (place or (2, 4))
    assert [(r.kind, r.owner) for r in trainer.requests] == [("stop", "Asks")]
    assert trainer.stop_owner == ("Asks" if place else "trainer")


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
@pytest.mark.parametrize("hook", AT_AN_EPOCHS_END)
@pytest.mark.parametrize("ends", ["plan", "stop"])
def test_at_the_last_boundary_it_is_granted_before_the_end(
    hook: str, kind: str, ends: str
) -> None:
    def ask(trainer: Trainer) -> None:
        getattr(trainer, f"request_{kind}")("please")
        if ends == "stop":
            trainer.request_stop("enough")

    granted = Granted()
    epochs = 1 if ends == "plan" else 3
    make_trainer(
        None, regression_batches(2), asks_in(hook, ask), granted, num_epochs=epochs
    ).train()
    assert granted.places == {kind: [(1, 2)]}


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
@pytest.mark.parametrize("hook", ["evaluate", "on_metrics", "on_checkpoint"])
def test_who_always_asks_is_heard_a_few_times_a_boundary_and_the_run_ends(
    hook: str, kind: str
) -> None:
    always = asks_in(hook, lambda t: getattr(t, f"request_{kind}")("please"), 10**6)
    granted = Granted()
    trainer = make_trainer(None, regression_batches(3), always, granted, num_epochs=2)
    trainer.train()
    places = granted.places.get(kind, [])
    assert trainer.step == 6
    assert (2, 6) in places
    assert max(map(places.count, places)) <= 2


@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
@pytest.mark.parametrize("hook", ["evaluate", "on_metrics", "on_checkpoint"])
def test_what_is_asked_while_a_boundary_is_served_waits_for_the_next(
    hook: str, kind: str
) -> None:
    def both(trainer: Trainer) -> None:
        trainer.request_evaluation("first")
        trainer.request_checkpoint("first")

    again = asks_in(hook, lambda trainer: getattr(trainer, f"request_{kind}")("please"))
    granted = Granted()
    first = asks_in("on_step_end", both)
    first.name = "first"
    trainer = make_trainer(None, regression_batches(4), first, again, granted)
    trainer.train()
    # What comes before a checkpoint may still ask for it.
    is_same = kind == "checkpoint" and hook != "on_checkpoint"
    assert granted.places == {kind: [(0, 1 if is_same else 2)]}


def test_a_decision_before_the_first_batch_ends_the_run_there() -> None:
    class Decides(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            trainer.request_evaluation("once more")

        def evaluate(self) -> dict[str, float]:
            return {"val_loss": 1.0}

        def on_metrics(self, trainer: Trainer, metrics: Any) -> None:
            if "train_loss" not in metrics:
                trainer.request_stop("bad")

    trainer = make_trainer(None, regression_batches(2), Decides(), num_epochs=3)
    trainer.train()
    assert (trainer.epoch, trainer.step, trainer.stop_owner) == (1, 2, "Decides")


@pytest.mark.parametrize("hook", ["on_metrics", "on_epoch_end"])
def test_what_an_epochs_end_owes_is_saved_and_granted_after_a_resume(
    tmp_path: Path, hook: str
) -> None:
    class Saves(Callback):
        def on_checkpoint(self, trainer: Trainer) -> None:
            if trainer.epoch == 1:
                trainer.save_checkpoint(tmp_path / "one.pt")

    def ask(trainer: Trainer) -> None:
        if trainer.epoch == 1:
            trainer.request_evaluation("please")

    def build(granted: Granted, *others: Callback) -> Trainer:
        batches = regression_batches(2)
        return make_trainer(None, batches, granted, *others, num_epochs=2, seed=0)

    whole, rest, silent = Granted(), Granted(), Granted()
    build(whole, asks_in(hook, ask), Saves()).train()
    resumed = build(rest)
    resumed.load_checkpoint(tmp_path / "one.pt")
    resumed.train()
    build(silent).train()
    assert rest.places == whole.places == {"evaluation": [(1, 2)]}
    assert silent.places == {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_outside_of_a_run_nothing_is_granted_and_that_is_said(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    granted = Granted()
    trainer = make_trainer(None, regression_batches(1), granted)
    if when == "after":
        trainer.train()
    assert caplog.text == ""
    trainer.request_evaluation("please")
    assert "user asks for evaluation (please) outside of train()" in caplog.text
    trainer.train()
    assert granted.places == {}


# Whose it is.


class Helper:
    """What a plugin may keep; registered nowhere."""

    def ask(self, trainer: Trainer) -> None:
        functools.partial(self.really, trainer)()

    def really(self, trainer: Trainer) -> None:
        trainer.request_checkpoint("please")


class Ways:
    """A method for each way to write one that asks."""

    def another_first_word(this, trainer: Trainer) -> None:
        trainer.request_checkpoint("please")

    static = staticmethod(lambda trainer: Helper().really(trainer))

    @classmethod
    def of_the_class(cls, trainer: Trainer) -> None:
        trainer.request_checkpoint("please")

    def by_a_helper(self, trainer: Trainer) -> None:
        Helper().ask(trainer)

    def in_a_comprehension(self, trainer: Trainer) -> None:
        [ask("please") for ask in [trainer.request_checkpoint]]


@pytest.mark.parametrize("meter", [None, Meter()], ids=["plain", "metered"])
@pytest.mark.parametrize("failure", ["fatal", "isolate"])
@pytest.mark.parametrize("hook", ["on_step_end", "evaluate", "on_close"])
@pytest.mark.parametrize("way", [name for name in vars(Ways) if name[0] != "_"])
def test_a_request_is_its_plugins_however_the_method_is_written(
    way: str, hook: str, failure: str, meter: Meter | None
) -> None:
    body = {hook: vars(Ways)[way], "name": "asks", "failure": failure}
    trainer = make_trainer(
        None, regression_batches(1), type("Any", (Callback,), body)()
    )
    trainer.bus.meter = meter
    trainer.train()
    assert {request.owner for request in trainer.requests} == {"asks"}


class Around(Callback):
    @hookimpl(wrapper=True)
    def on_epoch_end(this, trainer: Trainer) -> Iterator[None]:
        trainer.request_checkpoint("before")
        yield
        trainer.request_checkpoint("after")


class Inside(Callback):
    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.request_checkpoint("inside")


def test_a_wrapper_asks_for_itself_and_what_it_surrounds_for_its_own() -> None:
    trainer = make_trainer(None, regression_batches(1), Around(), Inside())
    trainer.train()
    assert [(r.owner, r.reason) for r in trainer.requests] == [
        ("Around", "before"),
        ("Inside", "inside"),
        ("Around", "after"),
    ]


def test_a_plain_object_asks_under_its_name() -> None:
    class Plain:
        name = "plain"

        @hookimpl
        def on_step_end(it, trainer: Trainer) -> None:
            trainer.request_checkpoint("please")

    trainer = make_trainer(None, regression_batches(1), Plain())
    trainer.train()
    assert [request.owner for request in trainer.requests] == ["plain"]


def test_one_object_under_two_names_asks_under_each() -> None:
    asks = asks_in("on_epoch_end", lambda trainer: trainer.request_stop("please"), 2)
    trainer = make_trainer(None, regression_batches(1))
    trainer.bus.register_all([("one", asks), ("two", asks)])
    trainer.train()
    assert [request.owner for request in trainer.requests] == ["one", "two"]


def test_what_is_asked_about_state_is_the_plugins(tmp_path: Path) -> None:
    class Stateful(Callback):
        trainer: Any = None

        def on_setup(self, trainer: Trainer) -> None:
            type(self).trainer = trainer

        def state_dict(this) -> dict[str, Any]:
            this.trainer.request_evaluation("saved")
            return {"a": 1}

        def load_state_dict(this, state: Any) -> None:
            this.trainer.request_evaluation("loaded")

    trainer = make_trainer(None, regression_batches(1), Stateful(), num_epochs=2)
    trainer.bus.on_setup(trainer)  # type: ignore[misc]
    trainer.save_checkpoint(tmp_path / "a.pt")
    asked = [*trainer.requests]
    trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.train()
    asked += trainer.requests
    assert [(r.owner, r.reason) for r in asked] == [
        ("Stateful", "saved"),
        ("Stateful", "loaded"),
    ]


def in_a_thread(trainer: Trainer) -> None:
    thread = threading.Thread(target=trainer.request_checkpoint, args=("please",))
    thread.start()
    thread.join()


def test_who_is_no_plugin_is_the_user() -> None:
    def step(model: Any, batch: Any) -> Any:
        trainer.request_checkpoint("from the model's side")
        return model(*batch)["loss"]

    trainer = make_trainer(
        None,
        regression_batches(1),
        asks_in("on_epoch_end", in_a_thread),
        step_fn=step,
        loss_per="samples",  # measuring that would take more steps, which ask too
    )
    trainer.train()
    assert [request.owner for request in trainer.requests] == ["user", "user"]


def test_a_trainer_inside_a_plugin_keeps_its_own_records() -> None:
    def step(model: Any, batch: Any) -> Any:
        inner.request_checkpoint("the user's")
        return model(*batch)["loss"]

    asks = asks_in("on_step_end", lambda trainer: trainer.request_checkpoint("own"))
    inner = make_trainer(
        None,
        regression_batches(1),
        asks,
        step_fn=step,
        loss_per="samples",  # measuring that would take more steps, which ask too
    )
    outer = asks_in("on_epoch_end", lambda trainer: inner.train())
    make_trainer(None, regression_batches(1), outer).train()
    assert [(r.owner, r.reason) for r in inner.requests] == [
        ("user", "the user's"),
        ("Asks", "own"),
    ]


def test_requests_of_a_long_run_stay_few_and_every_stop_among_them() -> None:
    trainer = make_trainer()
    trainer.request_stop("first of all")
    for number in range(3 * MOST_REQUESTS):
        trainer.request_evaluation(str(number))
    kept = trainer.requests
    assert kept[0].reason == "first of all"
    assert MOST_REQUESTS < len(kept) <= 2 * MOST_REQUESTS
    latest = [str(number) for number in range(3 * MOST_REQUESTS)][-MOST_REQUESTS:]
    assert [request.reason for request in kept][-MOST_REQUESTS:] == latest


@pytest.mark.parametrize("kind", ["stop", "checkpoint", "evaluation"])
@pytest.mark.parametrize("reason", [None, 5, ValueError("boom"), Path("x")], ids=repr)
def test_a_reason_that_is_no_text_is_refused_where_it_is_asked(
    kind: str, reason: Any
) -> None:
    def ask(trainer: Trainer) -> None:
        getattr(trainer, f"request_{kind}")(reason)

    trainer = make_trainer(None, None, asks_in("on_step_end", ask))
    told = f"the reason of request_{kind} is {reason!r}; pass text"
    with pytest.raises(ConfigError, match=re.escape(told)) as raised:
        trainer.train()
    assert (trainer.step, trainer.requests) == (1, ())
    assert any("on_step_end" in note for note in raised.value.__notes__)


def test_a_reason_is_kept_as_text_of_no_other_class() -> None:
    trainer = make_trainer(
        None, None, asks_in("on_step_end", lambda t: t.request_stop(np.str_("enough")))
    )
    trainer.train()
    assert type(trainer.stop_reason) is str
