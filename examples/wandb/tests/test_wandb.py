"""One run there, however often it is resumed; and a run that goes on without it."""

import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest

from trainbus_wandb import WandbCallback
from training import Callback


class StandIn(ModuleType):
    """What the plugin calls of ``wandb``, which keeps what it is given."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = []
        self.is_down = False

    def init(self, **arguments):
        if self.is_down:
            raise ConnectionError("nobody is there")
        run = SimpleNamespace(arguments=arguments, summary={}, rows=[], ended=[])
        run.id = arguments["id"] or "made"  # each time: the kit compares states
        run.define_metric = lambda *given, **named: None
        run.log = run.rows.append
        run.finish = lambda exit_code: run.ended.append(exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    module = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_it_conforms(wandb, assert_plugin_conforms):
    assert_plugin_conforms(WandbCallback)


def test_a_run_is_logged_by_step_and_says_how_it_ended(wandb, tiny_trainer):
    trainer = tiny_trainer(
        WandbCallback(project="shapes", every_n_steps=2, init={"tags": ["a"]}),
        num_epochs=1,
    )
    trainer.train()
    (run,) = wandb.runs
    assert (run.arguments["project"], run.arguments["tags"]) == ("shapes", ["a"])
    assert run.arguments["name"] == trainer.save_dir.name
    assert [row["step"] for row in run.rows if "train/loss" in row] == [2, 4]
    (measured,) = (row for row in run.rows if "val_loss" in row)
    assert measured["val_loss"] == trainer.history[0]["val_loss"]
    assert measured["step"] == 4
    assert (run.summary["stopped_by"], run.ended) == ("trainer", [0])


def test_a_resumed_run_goes_on_in_its_own(wandb, tiny_trainer, tmp_path):
    first = tiny_trainer(WandbCallback(), num_epochs=1)
    first.train()
    path = tmp_path / "state.pt"
    first.save_checkpoint(path)
    second = tiny_trainer(WandbCallback(), num_epochs=2)
    second.load_checkpoint(path)
    second.train()
    fresh = tiny_trainer(second.plugins["wandb"], num_epochs=1)
    fresh.train()
    assert [run.arguments["id"] for run in wandb.runs] == [None, "made", None]


def test_a_failing_run_is_told_as_failed(wandb, tiny_trainer):
    class Fails(Callback):
        def on_epoch_end(self):
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        tiny_trainer(WandbCallback(), Fails()).train()
    assert wandb.runs[0].ended == [1]
    assert wandb.runs[0].summary == {
        "stopped_by": "error",
        "reason": "RuntimeError: out of luck",
    }


def test_a_run_that_a_signal_ends_says_so(wandb, tiny_trainer):
    class Signals(Callback):
        def on_step_end(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        tiny_trainer(WandbCallback(), Signals()).train()
    (run,) = wandb.runs
    assert (run.summary["stopped_by"], run.ended) == ("signal", [1])
    assert "SIGTERM" in run.summary["reason"]


def test_a_run_goes_on_where_nobody_is_there(wandb, tiny_trainer, caplog):
    wandb.is_down = True
    trainer = tiny_trainer(WandbCallback(), num_epochs=1)
    trainer.train()
    assert trainer.step == 4
    assert "nobody is there" in caplog.text


def test_a_fresh_run_that_reached_nobody_does_not_name_the_one_before(
    wandb, tiny_trainer
):
    plugin = WandbCallback()
    tiny_trainer(plugin, num_epochs=1).train()
    wandb.is_down = True
    tiny_trainer(plugin, num_epochs=1).train()
    assert plugin.state_dict() == {"id": None}


def test_the_real_one_takes_what_it_is_given(tiny_trainer, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    plugin = WandbCallback(every_n_steps=1, init={"mode": "offline"})
    trainer = tiny_trainer(plugin, num_epochs=1)
    trainer.train()
    (file,) = trainer.save_dir.glob(f"wandb/offline-run-*-{plugin.id}/*.wandb")
    assert file.stat().st_size > 0
