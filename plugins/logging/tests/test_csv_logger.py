"""What CSVLoggerCallback promises, one claim a test."""

import csv
import math
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import trainbus_logging
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


class FullWhile(Callback):
    """Leaves next to no room for any file while ``is_full(step)``, or ``for_good``."""

    before = ("csv",)

    def __init__(self, room, is_full, for_good=False):
        self.room, self.is_full, self.for_good = room, is_full, for_good

    def _look(self, trainer):
        self.room(9 if self.is_full(trainer.step) else None)

    def on_train_begin(self, trainer):
        self._look(trainer)

    def on_step_end(self, trainer):
        self._look(trainer)

    def on_epoch_end(self, trainer):
        self._look(trainer)

    def on_train_end(self):
        self.room(9 if self.for_good else None)


def columns_of(folder):
    epochs = rows_of(folder / "run" / "training_log.csv")
    steps = rows_of(folder / "run" / "training_log.steps.csv")
    return [int(row["epoch"]) for row in epochs], [int(row["step"]) for row in steps]


def test_a_disk_that_is_full_for_a_while_costs_no_row_of_a_log_and_one_warning_a_file(
    make_trainer, tmp_path, room, caplog
):
    full = FullWhile(room, lambda step: 4 < step < 18)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=5).train()
    assert columns_of(tmp_path) == ([*range(1, 6)], [*range(1, 21)])
    assert caplog.text.count("cannot be written (File too large)") == 2
    assert "switched off" not in caplog.text


def test_the_last_rows_are_written_at_the_end_where_the_disk_was_full_before(
    make_trainer, tmp_path, room
):
    full = FullWhile(room, lambda step: step == 8)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1)).train()
    assert columns_of(tmp_path) == ([1, 2], [*range(1, 9)])


def test_rows_that_a_log_lacks_in_the_end_are_told_of(
    make_trainer, tmp_path, room, caplog
):
    full = FullWhile(room, lambda step: step > 4, for_good=True)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=3).train()
    assert columns_of(tmp_path) == ([1], [1, 2, 3, 4])
    assert "2 of its rows are missing, of the epochs from 2 to 3" in caplog.text
    assert "8 of its rows are missing, of the steps from 5 to 12" in caplog.text


def test_a_log_that_cannot_be_written_when_a_run_goes_on_is_written_later(
    make_trainer, tmp_path, room
):
    saved = tmp_path / "half.pt"
    log = CSVLoggerCallback(every_n_steps=1)
    make_trainer(log, make_trainer.save_at(6, saved)).train()
    full = FullWhile(room, lambda step: step == 6)
    resumed = make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=3)
    resumed.load_checkpoint(saved)
    resumed.train()
    assert columns_of(tmp_path) == ([1, 2, 3], [*range(1, 13)])


def test_of_rows_that_wait_for_a_disk_the_latest_are_kept(
    make_trainer, tmp_path, room, monkeypatch, caplog
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_KEPT", 4)
    full = FullWhile(room, lambda step: 4 < step < 12)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=3).train()
    assert columns_of(tmp_path) == ([1, 2, 3], [1, 2, 3, 4, 9, 10, 11, 12])
    assert "4 of its rows are missing, of the steps from 5 to 8" in caplog.text


def test_rows_that_no_memory_was_left_for_are_told_of_with_those_that_wait(
    make_trainer, tmp_path, room, monkeypatch, caplog
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_KEPT", 4)
    full = FullWhile(room, lambda step: step > 4, for_good=True)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=3).train()
    assert columns_of(tmp_path) == ([1], [1, 2, 3, 4])
    assert "8 of its rows are missing, of the steps from 5 to 12" in caplog.text


def test_what_others_added_to_a_log_stays_where_a_resume_cannot_write_at_once(
    make_trainer, tmp_path, room
):
    saved = tmp_path / "half.pt"
    make_trainer(CSVLoggerCallback(), make_trainer.save_at(6, saved)).train()
    path = tmp_path / "run" / "training_log.csv"
    header, *rows = path.read_text().splitlines()
    lines = [f"{header},remark", *(f"{row},good" for row in rows)]
    path.write_text("\n".join([*lines, ""]))
    full = FullWhile(room, lambda step: step == 6)
    resumed = make_trainer(full, CSVLoggerCallback(), num_epochs=3)
    resumed.load_checkpoint(saved)
    resumed.train()
    assert [row["remark"] for row in rows_of(path)] == ["good", "", ""]
    assert not path.with_name("training_log.1.csv").exists()
