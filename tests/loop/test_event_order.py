"""The order of events, as hookspecs writes it, and what requests do to it."""

from __future__ import annotations

import pytest
from toy import Recorder, make_trainer, regression_batches

from training import Callback, Trainer

GOLDEN = """
on_setup
metric_names
on_train_begin
on_epoch_begin
on_batch_begin 0
on_batch_end 0
on_batch_begin 1
on_batch_end 1
on_before_step
on_step_end 1
on_batch_begin 2
on_batch_end 2
on_before_step
on_step_end 2
evaluate
on_metrics
on_epoch_end 1
on_checkpoint epoch_end
on_epoch_begin
on_batch_begin 0
on_batch_end 0
on_batch_begin 1
on_batch_end 1
on_before_step
on_step_end 3
on_batch_begin 2
on_batch_end 2
on_before_step
on_step_end 4
evaluate
on_metrics
on_epoch_end 2
on_checkpoint epoch_end
on_train_end
on_close
"""


def test_a_run_fires_every_event_in_the_documented_order() -> None:
    recorder = Recorder()
    make_trainer(
        None,
        regression_batches(3),
        recorder,
        num_epochs=2,
        gradient_accumulation_steps=2,
    ).train()
    assert recorder.heard == GOLDEN.split("\n")[1:-1]


class AtStep(Callback):
    """Calls one request method when a step has ended."""

    def __init__(self, step: int, request: str) -> None:
        self.step = step
        self.request = request

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            getattr(trainer, self.request)("because")


def tail(recorder: Recorder, count: int) -> list[str]:
    return recorder.heard[-count:]


def test_a_requested_stop_saves_and_ends_at_the_next_boundary() -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder, AtStep(2, "request_stop"))
    trainer.train()
    assert tail(recorder, 4) == [
        "on_step_end 2",
        "on_checkpoint stop",
        "on_train_end",
        "on_close",
    ]
    assert (trainer.stop_owner, trainer.stop_reason) == ("AtStep", "because")
    assert trainer.step == 2


def test_a_stop_requested_at_the_last_step_still_ends_the_epoch() -> None:
    recorder = Recorder()
    make_trainer(None, None, recorder, AtStep(4, "request_stop"), num_epochs=3).train()
    assert tail(recorder, 6) == [
        "evaluate",
        "on_metrics",
        "on_epoch_end 1",
        "on_checkpoint epoch_end",
        "on_train_end",
        "on_close",
    ]


def test_a_requested_evaluation_runs_before_the_next_batch() -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder, AtStep(1, "request_evaluation"))
    trainer.train()
    after = recorder.heard.index("on_step_end 1") + 1
    assert recorder.heard[after : after + 2] == ["evaluate", "on_metrics"]


def test_a_requested_checkpoint_is_announced_with_its_reason() -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder, AtStep(3, "request_checkpoint"))
    trainer.train()
    after = recorder.heard.index("on_step_end 3") + 1
    assert recorder.heard[after] == "on_checkpoint because"
    assert [(r.kind, r.owner, r.step) for r in trainer.requests] == [
        ("checkpoint", "AtStep", 3)
    ]


def test_max_steps_inside_an_epoch_evaluates_reports_and_saves() -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder, max_steps=3)
    trainer.train()
    assert tail(recorder, 6) == [
        "evaluate",
        "on_metrics",
        "on_epoch_end 0",
        "on_checkpoint stop",
        "on_train_end",
        "on_close",
    ]
    assert trainer.step == 3
    assert trainer.stop_reason == "max_steps=3 reached"
    assert [row["epoch"] for row in trainer.history] == [1]


def test_the_reason_of_a_finished_plan_names_the_trainer() -> None:
    trainer = make_trainer(num_epochs=2)
    assert trainer.stop_reason is None
    trainer.train()
    assert (trainer.stop_owner, trainer.stop_reason) == (
        "trainer",
        "num_epochs=2 reached",
    )


class Raises(Callback):
    """Raises in one hook."""

    def __init__(self, hook: str) -> None:
        def fail(self: Callback) -> None:
            raise RuntimeError("boom")

        self.__class__ = type("Raises", (Raises,), {hook: fail})


@pytest.mark.parametrize(
    "hook", ["on_setup", "on_train_begin", "on_batch_end", "on_metrics", "on_train_end"]
)
def test_an_error_in_a_plugin_is_announced_closed_and_raised(hook: str) -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder, Raises(hook))
    with pytest.raises(RuntimeError, match="boom") as caught:
        trainer.train()
    assert tail(recorder, 2) == ["on_exception", "on_close"]
    assert "raised by plugin 'Raises'" in caught.value.__notes__[0]
    assert f"in {hook} at step" in caught.value.__notes__[0]


def test_every_plugin_is_closed_even_if_another_close_fails() -> None:
    recorder = Recorder()
    with pytest.raises(RuntimeError, match="boom"):
        make_trainer(None, None, Raises("on_close"), recorder).train()
    assert recorder.heard[-1] == "on_close"


def test_a_failing_exception_hook_does_not_replace_the_first_error() -> None:
    def step(model: object, batch: object) -> None:
        raise KeyError("first")

    trainer = make_trainer(None, None, Raises("on_exception"), step_fn=step)
    with pytest.raises(KeyError, match="first") as caught:
        trainer.train()
    assert any("then on_exception failed" in note for note in caught.value.__notes__)


def test_no_plugin_at_all_trains() -> None:
    trainer = make_trainer(num_epochs=2)
    trainer.train()
    assert [row["epoch"] for row in trainer.history] == [1, 2]
    assert trainer.history[1]["train_loss"] < trainer.history[0]["train_loss"]
