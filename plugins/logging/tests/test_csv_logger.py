"""What CSVLoggerCallback promises, one claim a test."""

import csv
import math
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainbus_logging import CSVLoggerCallback
from training import ConfigError
from training.callbacks import Callback


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_an_epoch_holds_the_history_with_every_digit(make_trainer, tmp_path):
    trainer = make_trainer(CSVLoggerCallback(), make_trainer.fixed({"val_loss": 0.1}))
    trainer.train()
    rows = rows_of(tmp_path / "run" / "training_log.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["step"] == "4"
    assert float(rows[1]["train_loss"]) == trainer.history[1]["train_loss"]
    assert rows[0]["val_loss"] == "0.1"
    assert rows[1]["val_loss"] == ""


def test_a_relative_filename_is_relative_to_the_working_directory(
    make_trainer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_trainer(CSVLoggerCallback(filename="logs/training_log.csv")).train()
    assert len(rows_of(tmp_path / "logs" / "training_log.csv")) == 2


def test_a_metric_that_appears_later_adds_a_column(make_trainer, tmp_path):
    late = make_trainer.fixed({"val_loss": 0.1}, {"val_loss": 0.2, "f1": 0.5})
    make_trainer(CSVLoggerCallback(), late).train()
    rows = rows_of(tmp_path / "run" / "training_log.csv")
    assert [row["f1"] for row in rows] == ["", "0.5"]
    assert [row["val_loss"] for row in rows] == ["0.1", "0.2"]


def test_a_value_that_is_no_number_is_an_empty_cell_with_a_note(make_trainer, tmp_path):
    bad = make_trainer.fixed({"val_loss": math.nan, "f1": math.inf}, {"val_loss": 0.2})
    make_trainer(CSVLoggerCallback(), bad).train()
    first, second = rows_of(tmp_path / "run" / "training_log.csv")
    assert (first["val_loss"], first["f1"]) == ("", "")
    assert first["notes"] == "val_loss=nan; f1=inf"
    assert second["notes"] == ""


def test_a_metric_that_has_the_name_of_the_notes_keeps_its_values(
    make_trainer, tmp_path
):
    own = make_trainer.fixed({"notes": 7.0, "f1": 0.5}, {"notes": 8.0, "f1": math.nan})
    make_trainer(CSVLoggerCallback(), own).train()
    rows = rows_of(tmp_path / "run" / "training_log.csv")
    assert [row["metric/notes"] for row in rows] == ["7.0", "8.0"]
    assert [row["notes"] for row in rows] == ["", "f1=nan"]


def test_a_fresh_run_keeps_every_earlier_log(make_trainer, tmp_path):
    for epochs in (1, 2, 3):
        make_trainer(CSVLoggerCallback(), num_epochs=epochs).train()
    folder = tmp_path / "run"
    counts = {path.name: len(rows_of(path)) for path in folder.glob("*.csv")}
    expected = {"training_log.1.csv": 1, "training_log.2.csv": 2, "training_log.csv": 3}
    assert counts == expected


def test_a_run_that_ends_before_its_first_row_touches_nothing(make_trainer, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("mine\n")
    trainer = make_trainer(CSVLoggerCallback(path), loader=[("bad", "batch")])
    with pytest.raises(TypeError):
        trainer.train()
    assert path.read_text() == "mine\n"
    assert [p.name for p in tmp_path.glob("*.csv")] == ["log.csv"]


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(
    make_trainer, tmp_path, step
):
    path, saved = tmp_path / "log.csv", tmp_path / "half.pt"
    whole = make_trainer(
        CSVLoggerCallback(path), make_trainer.save_at(step, saved), num_epochs=3
    )
    whole.train()
    expected = [(row["epoch"], row["train_loss"]) for row in rows_of(path)]

    resumed = make_trainer(CSVLoggerCallback(path), num_epochs=3)
    resumed.load_checkpoint(saved)
    resumed.train()
    assert [(row["epoch"], row["train_loss"]) for row in rows_of(path)] == expected


def begun(make_trainer: Any, folder: Path) -> Path:
    """Return the log of a run of two epochs, saved in the second as ``half.pt``."""
    path = folder / "log.csv"
    save = make_trainer.save_at(6, folder / "half.pt")
    make_trainer(CSVLoggerCallback(path), save).train()
    return path


def assert_logs_both_epochs(
    make_trainer: Any, path: Path, resumed: bool = True
) -> None:
    trainer = make_trainer(CSVLoggerCallback(path))
    if resumed:
        trainer.load_checkpoint(path.with_name("half.pt"))
    trainer.train()
    assert [row["epoch"] for row in rows_of(path)] == ["1", "2"]


def test_a_torn_last_line_is_dropped_on_resume(make_trainer, tmp_path):
    path = begun(make_trainer, tmp_path)
    with path.open("a") as file:
        file.write("3,12,0.")
    assert_logs_both_epochs(make_trainer, path)


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param(None, id="gone"),
        pytest.param("name,age\nann,3\n", id="not a log: it is kept beside"),
    ],
)
def test_a_missing_log_is_written_anew_from_the_history(
    make_trainer, tmp_path, foreign
):
    path = begun(make_trainer, tmp_path)
    path.unlink()
    if foreign:
        path.write_text(foreign)
    assert_logs_both_epochs(make_trainer, path)
    if foreign:
        assert (tmp_path / "log.1.csv").read_text() == foreign


def losses_of(trainer):
    return [str(row["train_loss"]) for row in trainer.history]


@pytest.mark.parametrize("step", [2, 6], ids=["in the first epoch", "in a later one"])
@pytest.mark.parametrize("length", [2, 4], ids=["another length", "the same steps"])
def test_the_log_of_another_run_is_kept_beside_on_resume(
    make_trainer, tmp_path, step, length
):
    path, saved = tmp_path / "log.csv", tmp_path / "half.pt"
    make_trainer(make_trainer.save_at(step, saved)).train()
    other = [(x + 1, y) for x, y in make_trainer.data[:length]]
    make_trainer(CSVLoggerCallback(path), num_epochs=3, loader=other).train()
    earlier = path.read_text()

    resumed = make_trainer(CSVLoggerCallback(path))
    resumed.load_checkpoint(saved)
    resumed.train()
    assert [row["train_loss"] for row in rows_of(path)] == losses_of(resumed)
    assert (tmp_path / "log.1.csv").read_text() == earlier


def test_a_run_resumed_in_its_first_epoch_touches_nothing_before_its_first_row(
    make_trainer, tmp_path
):
    path, saved = tmp_path / "log.csv", tmp_path / "half.pt"
    make_trainer(make_trainer.save_at(2, saved)).train()
    path.write_text("mine\n")

    class Stops(Callback):
        def on_step_end(self):
            raise KeyboardInterrupt

    resumed = make_trainer(CSVLoggerCallback(path), Stops())
    resumed.load_checkpoint(saved)
    with pytest.raises(KeyboardInterrupt):
        resumed.train()
    assert path.read_text() == "mine\n"
    assert [each.name for each in tmp_path.glob("*.csv")] == ["log.csv"]


def test_rows_that_the_log_lacks_are_made_up_on_resume(make_trainer, tmp_path):
    path, saved = tmp_path / "log.csv", tmp_path / "half.pt"
    save = make_trainer.save_at(10, saved)
    make_trainer(CSVLoggerCallback(path), save, num_epochs=3).train()
    path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:2]) + b"2,8")
    resumed = make_trainer(CSVLoggerCallback(path), num_epochs=3)
    resumed.load_checkpoint(saved)
    resumed.train()
    assert [row["train_loss"] for row in rows_of(path)] == losses_of(resumed)
    assert not (tmp_path / "log.1.csv").exists()


def test_a_column_that_a_reader_has_added_stays_on_resume(make_trainer, tmp_path):
    path = begun(make_trainer, tmp_path)
    header, first, _ = path.read_text().splitlines()
    path.write_text(f"{header},remark\n{first},good\n")
    assert_logs_both_epochs(make_trainer, path)
    assert [row["remark"] for row in rows_of(path)] == ["good", ""]


def test_a_log_removed_meanwhile_is_written_anew_with_the_next_row(
    make_trainer, tmp_path
):
    path = tmp_path / "log.csv"

    class Removes(Callback):
        def on_epoch_begin(self):
            path.unlink(missing_ok=True)

    make_trainer(CSVLoggerCallback(path), Removes()).train()
    assert [row["epoch"] for row in rows_of(path)] == ["1", "2"]


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "fresh"])
@pytest.mark.parametrize(
    ("make", "is_kept"),
    [
        pytest.param(os.mkfifo, stat.S_ISFIFO, id="a named pipe"),
        pytest.param(
            lambda path: path.symlink_to("/dev/zero"), stat.S_ISLNK, id="a device"
        ),
    ],
)
def test_what_is_no_file_is_not_waited_for_and_kept_beside(
    make_trainer, tmp_path, make, is_kept, resumed
):
    path = begun(make_trainer, tmp_path)
    path.unlink()
    make(path)
    assert_logs_both_epochs(make_trainer, path, resumed)
    assert is_kept((tmp_path / "log.1.csv").lstat().st_mode)


@pytest.mark.parametrize("name", ["", "file/below"], ids=["a folder", "below a file"])
def test_a_path_that_cannot_be_written_is_refused_before_training(
    make_trainer, tmp_path, name
):
    (tmp_path / "file").write_text("")
    trainer = make_trainer(CSVLoggerCallback(tmp_path / name))
    with pytest.raises(ConfigError, match=r"csv\.filename"):
        trainer.train()
    assert trainer.step == 0


def test_a_device_is_refused_and_not_renamed(tmp_path, monkeypatch):
    path = tmp_path / "device"
    path.touch()
    monkeypatch.setattr(Path, "is_char_device", lambda each: each == path)
    trainer = SimpleNamespace(save_dir=tmp_path)
    with pytest.raises(ConfigError, match="is a device; name a file"):
        CSVLoggerCallback(path).on_setup(trainer)
    monkeypatch.undo()
    CSVLoggerCallback(path).on_setup(trainer)


class FillsTheDisk(Callback):
    """Leaves room for the beginning of the second epoch's row alone."""

    before = ("csv",)

    def __init__(self, room, path):
        self.room, self.path = room, path

    def on_epoch_end(self, trainer):
        self.room(self.path.stat().st_size + 9 if trainer.epoch == 2 else None)


def test_a_row_that_was_written_in_part_is_made_up_with_the_next_one(
    make_trainer, tmp_path, room
):
    path = tmp_path / "run" / "training_log.csv"
    trainer = make_trainer(FillsTheDisk(room, path), CSVLoggerCallback(), num_epochs=4)
    trainer.train()
    rows = rows_of(path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    losses = [each["train_loss"] for each in trainer.history]
    assert [float(row["train_loss"]) for row in rows] == losses
