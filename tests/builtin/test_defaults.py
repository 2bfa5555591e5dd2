"""What a trainer that Python builds does without being told: it shows, and records."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import Recorder, make_trainer

from training import (
    Callback,
    CheckpointError,
    ConfigError,
    MetricError,
    PluginError,
    ProgressBarCallback,
)
from training.app.records.run_folder import read_run
from training.builtin.defaults import DEFAULTS
from training.builtin.run_record import RunRecord

KEEPS = {"checkpointing": {"monitor": None}}
LAST = "runs/checkpoints/last-epoch000-step2.pt"


@pytest.fixture(autouse=True)
def _with_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRAINBUS_DEFAULTS")
    monkeypatch.chdir(tmp_path)


def test_a_trainer_shows_progress_and_leaves_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(None, None, num_epochs=2, save_dir=tmp_path / "out")
    trainer.train()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert json.loads((tmp_path / "out/history.json").read_text()) == trainer.history
    assert json.loads((tmp_path / "out/summary.json").read_text())["epochs"] == 2
    settings = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert settings["training"]["optimizer"]["lr"] == 0.1
    assert settings["plugins"] == list(trainer.plugins)


def test_a_command_says_in_a_sentence_that_python_built_what_a_record_is_of(
    tmp_path: Path, command: Any
) -> None:
    make_trainer(None, None, num_epochs=1, save_dir=tmp_path).train()
    config = str(tmp_path / "config.yaml")
    for words in (["run", config], ["evaluate", config, "--checkpoint", "last.pt"]):
        code, _, told = command(*words)
        assert code == 2
        assert "model is a Regression that was built in Python" in told
        assert len(told.splitlines()) == 1


class Own(Callback):
    """Stands in for a default, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def on_epoch_end(self) -> None: ...


@pytest.mark.parametrize(
    ("plugins", "callbacks", "left"),
    [
        pytest.param([], [], {*DEFAULTS}, id="both"),
        pytest.param(["no:progress"], [], {"run_record"}, id="no progress"),
        pytest.param(["no:run_record"], [], {"progress"}, id="no record"),
        pytest.param([f"no:{n}" for n in DEFAULTS], [], set(), id="neither"),
        pytest.param(["progress"], [], {*DEFAULTS}, id="named: no second bar"),
        pytest.param(
            [{"progress": {"id": "bar"}}],
            [],
            {"bar", "run_record"},
            id="named otherwise: no second bar",
        ),
        pytest.param(
            [], [ProgressBarCallback()], {*DEFAULTS}, id="passed: no second bar"
        ),
        pytest.param([], [Own("run_record")], {*DEFAULTS}, id="a record of one's own"),
    ],
)
def test_defaults_give_way(
    plugins: list[Any], callbacks: list[Any], left: set[str]
) -> None:
    trainer = make_trainer(None, None, *callbacks, plugins=plugins)
    assert set(trainer.plugins) == left
    for each in callbacks:
        assert trainer.plugins[each.name] is each


def test_the_variable_switches_them_off_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINBUS_DEFAULTS", "off")
    trainer = make_trainer(None, None)
    trainer.train()
    assert not trainer.plugins
    assert not list(tmp_path.iterdir())


def test_what_is_no_default_cannot_be_switched_off() -> None:
    with pytest.raises(PluginError, match=r"'no:progres'.*mean 'progress'"):
        make_trainer(None, None, plugins=["no:progres"])


def test_nobody_hears_a_batch_where_nothing_can_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    trainer = make_trainer(None, None)
    assert trainer.bus.on_batch_begin is trainer.bus.on_batch_end is None
    assert trainer.bus.on_step_end is None


def test_a_folder_that_is_taken_costs_the_record_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Another(Callback):
        def on_train_begin(self) -> None:
            second.train()

    second = make_trainer(None, None)
    first = make_trainer(None, None, Another(), Recorder())
    first.train()
    assert first.step == second.step == 4
    assert "no record of this run is kept" in caplog.text
    summary = json.loads((tmp_path / "runs/summary.json").read_text())
    assert summary["final"]["val_loss"] == 1.0, "the first one's"


def test_a_record_that_was_asked_for_is_not_given_up() -> None:
    assert RunRecord.failure == "fatal"
    trainer = make_trainer(None, None)
    assert trainer.plugins["run_record"].failure == "isolate"


class Interrupts(Callback):
    """Presses Ctrl-C behind a step."""

    def on_step_end(self, trainer: Any) -> None:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def interrupted(**options: Any) -> str:
    with pytest.raises(KeyboardInterrupt) as caught:
        make_trainer(None, None, Interrupts(), **options).train()
    (note,) = caught.value.__notes__
    return str(note)


def test_ctrl_c_says_the_line_that_goes_on_and_it_does() -> None:
    options: dict[str, Any] = {"num_epochs": 2, "plugins": [KEEPS]}
    what, line = interrupted(**options).split("; go on with the same options and: ")
    assert what.endswith(f"the newest checkpoint is {LAST}")
    trainer = make_trainer(None, None, **options)
    eval(line, {"trainer": trainer})  # as a person would type it
    assert (trainer.resumed_from, trainer.epoch) == (Path(LAST), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_exits_says_once_the_line_that_goes_on(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    class Ends(Callback):
        def on_step_end(self, trainer: Any) -> None:
            if trainer.step == 2:
                signal.raise_signal(number)

    with pytest.raises(SystemExit) as caught:
        make_trainer(None, None, Ends(), num_epochs=2, plugins=[KEEPS]).train()
    assert caught.value.code == 128 + number
    told = [each for each in caplog.messages if "go on with the same options" in each]
    at = f"{number.name} received at epoch 0, step 2; the newest checkpoint is {LAST}; "
    way = f"go on with the same options and: trainer.train(resume={LAST!r})"
    assert told == [at + way]
    assert not hasattr(caught.value, "__notes__")  # Python prints none of an exit


def test_ctrl_c_says_that_there_is_nothing_to_go_on_from() -> None:
    assert "there is no checkpoint to go on from" in interrupted()


class InterruptsAtOnce(Callback):
    """Presses Ctrl-C before the first step."""

    def on_train_begin(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("resume", "told"),
    [
        (None, "it had saved no checkpoint yet; start it in the same way to begin"),
        (LAST, f"it had gone on from {LAST} and has saved none since; start it in"),
    ],
)
def test_ctrl_c_before_the_first_step_says_what_the_same_command_does(
    resume: str | None, told: str
) -> None:
    options: dict[str, Any] = {"num_epochs": 2, "plugins": [KEEPS]}
    interrupted(**options)
    options["save_dir"] = "other"  # whose folder has none
    trainer = make_trainer(None, None, InterruptsAtOnce(), **options)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.train(resume=resume)
    assert told in caught.value.__notes__[0]


def test_ctrl_c_stays_what_was_raised_where_a_plugin_cannot_tell() -> None:
    class Mute(Callback):
        hook_api = ">=1.1,<2"

        def summary(self) -> None:
            raise RuntimeError("mine")

    options: dict[str, Any] = {"plugins": ["no:progress", "no:run_record"]}
    with pytest.raises(KeyboardInterrupt) as caught:
        make_trainer(None, None, Interrupts(), Mute(), **options).train()
    assert any(
        "cannot be told: RuntimeError: mine" in n for n in caught.value.__notes__
    )


@pytest.mark.parametrize("resume", ["auto", LAST])
def test_training_goes_on_from_a_checkpoint(resume: str) -> None:
    options: dict[str, Any] = {"num_epochs": 2, "plugins": [KEEPS]}
    interrupted(**options)
    trainer = make_trainer(None, None, **options)
    trainer.train(resume=resume)
    straight = make_trainer(None, None, num_epochs=2, save_dir="straight")
    straight.train()
    losses = [[row["train_loss"] for row in t.history] for t in (trainer, straight)]
    assert losses[0] == losses[1]
    assert trainer.resumed_from is not None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("early_stopping", {}),
        ("checkpointing", {}),
        ("lr_scheduling", {"type": "plateau"}),
    ],
)
def test_who_watches_a_metric_that_nobody_measures_is_called_by_its_id(
    name: str, options: dict[str, Any]
) -> None:
    plugin = {name: {"id": "mine", "monitor": "val_f1", **options}}
    with pytest.raises(MetricError, match=r"^mine\.monitor"):
        make_trainer(None, None, plugins=[plugin]).train()


def test_a_changed_setting_can_be_consented_to_as_training_goes_on() -> None:
    options: dict[str, Any] = {"num_epochs": 2, "plugins": [KEEPS]}
    interrupted(**options, seed=1)
    trainer = make_trainer(None, None, **options, seed=2)
    with pytest.raises(CheckpointError, match=r"allow_changes=\['seed'\]"):
        trainer.train(resume="auto")
    trainer.train(resume="auto", allow_changes=["seed"])
    assert (trainer.epoch, trainer.seed) == (2, 2)


def test_consent_without_a_checkpoint_is_refused() -> None:
    trainer = make_trainer(None, None)
    with pytest.raises(ConfigError, match=r"\['seed'\], of no use without resume"):
        trainer.train(allow_changes=["seed"])


def test_what_was_taken_over_is_told_where_nobody_has_set_up_logging(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options: dict[str, Any] = {"num_epochs": 2, "plugins": [KEEPS]}
    interrupted(**options)
    make_trainer(None, None, **options).train(resume="auto")
    told = [each for each in caplog.records if "resumed from" in each.message]
    assert [each.levelname for each in told] == ["WARNING"]


@pytest.mark.parametrize(
    ("resume", "error", "told"),
    [
        pytest.param("atuo", CheckpointError, r"did you mean 'auto'", id="mistyped"),
        pytest.param("gone.pt", CheckpointError, "no such file", id="no file"),
        pytest.param(True, ConfigError, "resume is True, a bool", id="a boolean"),
        pytest.param(False, ConfigError, "resume is False, a bool", id="another"),
    ],
)
def test_what_is_nothing_to_go_on_from_is_told_in_a_sentence(
    resume: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        make_trainer(None, None, plugins=[KEEPS]).train(resume=resume)
    assert caught.value.__cause__ is None


def test_a_run_that_a_signal_ended_is_recorded_as_interrupted() -> None:
    interrupted(num_epochs=2, plugins=[KEEPS])
    run = read_run(Path("runs"))
    assert (run.state, run.stopped_by) == ("interrupted", "signal")
    assert "SIGINT" in run.why


def test_auto_starts_where_there_is_no_checkpoint_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    trainer = make_trainer(None, None, plugins=[KEEPS])
    trainer.train(resume="auto")
    assert trainer.resumed_from is None
    assert "starting afresh" in caplog.text
