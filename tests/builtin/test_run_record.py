"""What plugins say of a run that has ended, in its summary."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from training import Callback, PluginError, Trainer
from training.builtin.default_record import DefaultRunRecord
from training.builtin.run_record import RunRecord
from training.callbacks import (
    CSVLoggerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
)
from training.testing import tiny_trainer


class Says(Callback):
    """Answers as it is told to."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, answer: Any) -> None:
        self.name, self.answer = name, answer  # type: ignore[misc]

    def summary(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def recorded(folder: Path, *plugins: Any, **options: Any) -> Trainer:
    record = RunRecord({}, {})
    record.after = (*record.after, *(each.name for each in plugins))  # type: ignore[misc]
    return tiny_trainer(record, *plugins, save_dir=folder, **options)


class FailsLater(Callback):
    """Is called three times too often."""

    hook_api = ">=1.1,<2"
    failure = "isolate"

    def on_step_end(self, trainer: Any) -> None:
        raise OSError(f"no disk at step {trainer.step}")


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_summary_says_which_plugin_was_switched_off_and_why(
    tmp_path: Path,
) -> None:
    trainer = tiny_trainer(RunRecord({}, {}), FailsLater(), save_dir=tmp_path)
    trainer.train()
    told = summary(tmp_path)["plugins"]
    assert told["FailsLater"]["class"].endswith("FailsLater")
    why = "switched off as on_step_end raised OSError('no disk at step 3')"
    assert [each.get("off") for each in told.values()].count(why) == 1
    assert told["FailsLater"]["off"] == why
    assert "off" not in told["run_record"]


def test_the_summary_puts_together_what_all_plugins_say(tmp_path: Path) -> None:
    plugins = (
        Says("b", {"best": {"val_loss": 1.0, "other": 2}, "paths": {"x": "/b"}}),
        Says("a", {"best": {"val_loss": 1.0}, "paths": {"x": "/a", "y": "/y"}}),
        Says("c", {"pruned": 3, "best": {}}),
        Says("d", None),
    )
    values = {"val_loss": [2.0, 1.0]}
    recorded(tmp_path, *plugins, metrics=values).train()
    found = summary(tmp_path)
    watched, other = found["best"]
    assert (watched["watched_by"], watched["row"]["epoch"]) == (["a", "b"], 2)
    assert (other["monitor"], other["value"], other["row"]) == ("other", 2, None)
    assert (found["paths"]["x"], found["paths"]["y"]) == ("/a", "/y")
    assert found["results"] == {"c": {"pruned": 3}}


def test_a_metric_that_one_wants_low_and_one_high_has_two_best_values(
    tmp_path: Path,
) -> None:
    plugins = (
        Says("high", {"best": {"val_loss": 2.0}}),
        Says("low", {"best": {"val_loss": 1.0}}),
    )
    recorded(tmp_path, *plugins, metrics={"val_loss": [2.0, 1.0]}).train()
    told = [
        (best["watched_by"], best["value"], best["row"]["epoch"])
        for best in summary(tmp_path)["best"]
    ]
    assert told == [(["high"], 2.0, 1), (["low"], 1.0, 2)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param([1], r"'odd' returned \[1\] from summary; return JSON", id="list"),
        pytest.param({"a": {1}}, "'odd' returned .* return JSON values", id="a set"),
        pytest.param(
            {"best": {"x": "y"}}, "'y' from summary as the best 'x'", id="text"
        ),
        pytest.param({"paths": {"x": 3}}, "3 from summary as the path 'x'", id="path"),
        pytest.param({"paths": ["x"]}, "return JSON values by name", id="no mapping"),
    ],
)
def test_an_answer_that_no_record_can_hold_is_refused(
    answer: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=words):
        recorded(tmp_path, Says("odd", answer)).train()


def test_a_run_that_failed_is_recorded_whatever_plugins_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def step(model: Any, batch: Any) -> Any:
        raise RuntimeError("no memory")

    plugin = Says("odd", ValueError("no answer"))
    with pytest.raises(RuntimeError, match="no memory"):
        recorded(tmp_path, plugin, step_fn=step).train()
    found = summary(tmp_path)
    assert (found["status"], found["best"]) == ("failed: RuntimeError: no memory", [])
    assert "no answer" in caplog.text


@pytest.mark.parametrize("make", [DefaultRunRecord, lambda: RunRecord({}, {})])
@pytest.mark.parametrize("answer", [ValueError("no answer"), [1], {"paths": {"x": 3}}])
def test_what_a_plugin_fails_to_leave_behind_is_the_error_of_a_run_that_ended_well(
    answer: Any, make: Callable[[], RunRecord], tmp_path: Path
) -> None:
    said = type(answer) if isinstance(answer, Exception) else PluginError
    odd = Says("odd", answer)
    trainer = tiny_trainer(make(), ProgressBarCallback(), odd, save_dir=tmp_path)
    with pytest.raises(said) as raised:
        trainer.train()
    for note in raised.value.__notes__:
        assert note.startswith("raised by plugin 'odd' (")
    assert trainer.epoch == trainer.num_epochs
    assert summary(tmp_path)["steps"] == trainer.step
    assert {"progress", "odd"} <= set(trainer.plugins)
    assert trainer.bus.failures == {}


def test_what_a_killed_run_was_writing_goes_when_the_next_one_begins(
    tmp_path: Path,
) -> None:
    names = ("config.yaml", "history.json", "summary.json", "starts.json")
    ours = [*names, "training_log.csv", "RESUMABLE"]
    gone, here = 2**22 + 1, os.getppid()  # numbers of processes
    kept = {f"notes.txt.00000000.tmp-{gone}", f"config.yaml.00000000.tmp-{here}"}
    for name in {*kept, *(f"{each}.0123abcd.tmp-{gone}" for each in ours)}:
        (tmp_path / name).write_text("half")
    plugins = CSVLoggerCallback(), ModelCheckpointCallback(monitor=None)
    recorded(tmp_path, *plugins).train()
    assert {path.name for path in tmp_path.glob("*.tmp-*")} == kept


def fails(monkeypatch: pytest.MonkeyPatch, name: str, times: float = 1) -> list[str]:
    """Let the disk be full for the first ``times`` writes of a file; return them."""
    failures: list[str] = []
    replace = os.replace

    def full(source: str, target: str) -> None:
        if Path(target).name == name and len(failures) < times:
            failures.append(target)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    return failures


def test_an_epoch_whose_record_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = fails(monkeypatch, "history.json")
    trainer = recorded(tmp_path)
    trainer.train()
    assert failures
    assert caplog.text.count("the history is written at a later time: ") == 1
    rows = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in rows] == list(range(1, trainer.epoch + 1))
    assert summary(tmp_path)["status"] == "finished"


def test_a_record_that_cannot_be_written_to_the_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, "history.json", times=math.inf)
    trainer = recorded(tmp_path)
    with pytest.raises(OSError, match=r"No space left on device.*history\.json"):
        trainer.train()
    assert trainer.epoch == trainer.num_epochs
    assert summary(tmp_path)["status"].startswith("failed: ")


@pytest.mark.parametrize("name", ["config.yaml", "starts.json"])
def test_a_record_whose_first_write_failed_is_made_up_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    failures = fails(monkeypatch, name)
    tiny_trainer(DefaultRunRecord(), save_dir=tmp_path).train()
    assert failures
    assert summary(tmp_path)["status"] == "finished"
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "history.json", "starts.json"} <= names
    (start,) = json.loads((tmp_path / "starts.json").read_text())
    assert start["ended"]["status"] == "finished"


def test_a_history_that_is_on_the_disk_is_not_written_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # to write takes no time
    path, seen = tmp_path / "history.json", []

    class Looks(Callback):
        after = ("run_record",)

        def on_epoch_end(self) -> None:
            seen.append(path.stat().st_mtime_ns)

    tiny_trainer(RunRecord({}, {}), Looks(), save_dir=tmp_path, num_epochs=2).train()
    assert len(set(seen)) == 2
    assert path.stat().st_mtime_ns == seen[-1]


class Clock(Callback):
    """A clock by which an epoch takes ``epoch`` seconds, and to replace a file one."""

    name = "clock"

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, epoch: float, stalls: int = 0
    ) -> None:
        self.now, self.epoch, self.stalls = 0.0, epoch, stalls
        #: Bytes of each history that was written, and rows in it.
        self.written: list[int] = []
        self.rows: list[int] = []
        self.replace = os.replace
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(os, "replace", self.slow)

    def on_epoch_begin(self) -> None:
        self.now += self.epoch

    def slow(self, source: str, target: str) -> None:
        self.now += 1
        if Path(target).name == "history.json":
            content = Path(source).read_bytes()
            self.written.append(len(content))
            self.rows.append(len(json.loads(content)))
            self.now += 60 if len(self.rows) == self.stalls else 0
        self.replace(source, target)


def test_the_history_of_many_short_epochs_is_written_in_a_small_share_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, epoch=2)
    recorded(tmp_path, clock, num_epochs=60).train()
    assert clock.rows[-1] == 60
    assert 4 < len(clock.rows) < 9  # 120 seconds, of which a twentieth
    assert sum(clock.written) < 5 * clock.written[-1]


def test_each_epoch_that_is_long_beside_a_write_is_on_the_disk_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, epoch=60)
    recorded(tmp_path, clock, num_epochs=5).train()
    assert clock.rows == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stalls", [1, 3])
def test_a_disk_that_stalls_once_delays_no_later_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalls: int
) -> None:
    clock = Clock(monkeypatch, epoch=60, stalls=stalls)
    recorded(tmp_path, clock, num_epochs=5).train()
    assert clock.rows == [1, 2, 3, 4, 5]


class Fails(Callback):
    """Raises ``error`` as an epoch begins, after that number of them."""

    name = "fails"

    def __init__(self, error: BaseException, epoch: int) -> None:
        self.error, self.epoch = error, epoch

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no memory")])
def test_a_run_that_fails_leaves_the_rows_of_all_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    clock = Clock(monkeypatch, epoch=0.25)
    trainer = recorded(tmp_path, clock, Fails(error, 5), num_epochs=9)
    with pytest.raises(type(error)):
        trainer.train()
    assert clock.rows == [1, trainer.epoch]
    assert summary(tmp_path)["final"] == trainer.history[-1]


class FailsAtAnEnd(Callback):
    """Raises at the end of the second epoch, whole or not."""

    name = "fails_at_an_end"

    def on_epoch_end(self, trainer: Trainer) -> None:
        if len(trainer.history) == 2:
            raise RuntimeError("no memory")


@pytest.mark.parametrize("length", [{"num_epochs": 3}, {"max_steps": 5}])
def test_an_epoch_at_whose_end_a_plugin_fails_before_the_record_has_its_row(
    tmp_path: Path, length: dict[str, Any]
) -> None:
    trainer = recorded(tmp_path, FailsAtAnEnd(), **length)
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.train()
    assert trainer.epoch == (2 if "num_epochs" in length else 1)
    rows = json.loads((tmp_path / "history.json").read_text())
    assert rows == trainer.history
    assert summary(tmp_path)["final"] == rows[1]


def test_a_resumed_run_that_fails_at_once_leaves_the_later_rows_of_before(
    tmp_path: Path,
) -> None:
    keeps = ModelCheckpointCallback(monitor=None, save_top_k=-1, save_best_only=False)
    recorded(tmp_path, keeps, num_epochs=3).train()
    before = (tmp_path / "history.json").read_bytes()
    (first, *_) = sorted((tmp_path / "checkpoints").glob("checkpoint-*.pt"))
    trainer = recorded(tmp_path, Fails(RuntimeError(), 1), num_epochs=3)
    with pytest.raises(RuntimeError):
        trainer.train(resume=first)
    assert trainer.epoch == 1
    assert (tmp_path / "history.json").read_bytes() == before


def test_a_failed_run_is_summarised_where_its_history_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails(monkeypatch, "history.json", times=math.inf)
    with pytest.raises(RuntimeError, match="no memory"):
        recorded(tmp_path, Fails(RuntimeError("no memory"), 1)).train()
    assert summary(tmp_path)["status"] == "failed: RuntimeError: no memory"
    assert "the history is not written: " in caplog.text


@pytest.mark.parametrize("fails", [False, True], ids=["ended", "failed"])
def test_a_run_whose_working_directory_is_deleted_ends_as_any_with_its_record(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deletes(Callback):
        def on_epoch_end(self) -> None:
            here.rmdir()
            if fails:
                raise ArithmeticError("its own")

    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    kept = ModelCheckpointCallback(monitor=None, every_n_steps=1)
    trainer = tiny_trainer(
        DefaultRunRecord(), kept, Deletes(), save_dir=tmp_path / "runs", num_epochs=1
    )
    with pytest.raises(ArithmeticError, match="its own") if fails else nullcontext():
        trainer.train()
    paths = summary(tmp_path / "runs")["paths"]
    assert paths["history"] == str(tmp_path / "runs" / "history.json")
    assert paths["last_checkpoint"] == str(kept.last_path)
