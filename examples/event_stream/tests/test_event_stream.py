"""Lines are whole, come while the run lives, and say everything once."""

import json
import math
import subprocess
import sys

import pytest

from trainbus_event_stream import EventStreamCallback, follow
from training import Callback


def lines_of(trainer):
    text = (trainer.save_dir / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_it_conforms(assert_plugin_conforms):
    assert_plugin_conforms(EventStreamCallback)


def test_reading_at_every_step_is_found_by_the_kit(assert_plugin_conforms):
    with pytest.raises(AssertionError, match="on_step_end reads the device"):
        assert_plugin_conforms(lambda: EventStreamCallback(every_n_steps=1))


def test_a_run_tells_its_story_in_order(tiny_trainer):
    trainer = tiny_trainer(EventStreamCallback(every_n_steps=2), num_epochs=1)
    trainer.train()
    lines = lines_of(trainer)
    assert [line["event"] for line in lines] == [
        *("train_begin", "step", "step", "metrics", "epoch_end", "checkpoint"),
        *("train_end", "close"),
    ]
    assert [line["seq"] for line in lines] == list(range(8))
    assert lines[3]["metrics"]["val_loss"] == trainer.history[0]["val_loss"]


def test_a_failing_run_says_why(tiny_trainer):
    class Fails(Callback):
        def on_epoch_end(self):
            raise RuntimeError("out of luck")

    trainer = tiny_trainer(EventStreamCallback(), Fails())
    with pytest.raises(RuntimeError):
        trainer.train()
    *_, failure, last = lines_of(trainer)
    assert failure["error"] == "RuntimeError: out of luck"
    assert last["event"] == "close"


def test_a_value_that_is_not_finite_is_a_string(tiny_trainer):
    trainer = tiny_trainer(
        EventStreamCallback(), metrics={"score": [math.nan]}, num_epochs=1
    )
    trainer.train()
    metrics = next(line for line in lines_of(trainer) if line["event"] == "metrics")
    assert metrics["metrics"]["score"] == "nan"


def test_another_process_follows_a_run_that_waits_for_it(tiny_trainer, tmp_path):
    """The run ends only after the other process has answered its first line."""
    file = tmp_path / "run" / "events.jsonl"
    command = [sys.executable, "-m", "trainbus_event_stream", str(file)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    heard = []

    class Waits(Callback):
        def on_train_end(self):
            heard.append(reader.stdout.readline())

    tiny_trainer(EventStreamCallback(every_n_steps=1), Waits(), num_epochs=1).train()
    rest, _ = reader.communicate(timeout=30)
    assert heard[0].startswith("step 0: train_begin")
    assert rest.splitlines()[-1].startswith("step 4: close")
    assert reader.returncode == 0


def test_following_a_silent_file_gives_up_if_told_to(tmp_path):
    with pytest.raises(TimeoutError, match=r"is silent for 0\.01 s"):
        next(follow(tmp_path / "none", interval=0.01, patience=0.01))
