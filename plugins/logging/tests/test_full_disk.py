"""What the CSV log does where its disk is full for a while, or for good."""

import csv

import trainbus_logging
from trainbus_logging import CSVLoggerCallback
from training.callbacks import Callback


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


class FullOnceLocked(CSVLoggerCallback):
    """Finds next to no room as soon as the file is its own, until the epoch begins."""

    def _take(self, trainer):
        super()._take(trainer)
        self.room(9)

    def on_epoch_begin(self):
        self.room(None)


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
    assert "lacks 2 rows, of the epochs from 2 to 3" in caplog.text
    assert "lacks 8 rows, of the steps from 5 to 12" in caplog.text


def test_a_log_that_cannot_be_written_when_a_run_goes_on_is_written_later(
    make_trainer, tmp_path, room
):
    saved = tmp_path / "half.pt"
    log = CSVLoggerCallback(every_n_steps=1)
    make_trainer(log, make_trainer.save_at(6, saved)).train()
    log = FullOnceLocked(every_n_steps=1)
    log.room = room
    resumed = make_trainer(log, num_epochs=3)
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
    assert "lacks 4 rows, of the steps from 5 to 8" in caplog.text


def test_rows_that_no_memory_was_left_for_are_told_of_with_those_that_wait(
    make_trainer, tmp_path, room, monkeypatch, caplog
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_KEPT", 4)
    full = FullWhile(room, lambda step: step > 4, for_good=True)
    make_trainer(full, CSVLoggerCallback(every_n_steps=1), num_epochs=3).train()
    assert columns_of(tmp_path) == ([1], [1, 2, 3, 4])
    assert "lacks 8 rows, of the steps from 5 to 12" in caplog.text


def test_what_others_added_to_a_log_stays_where_a_resume_cannot_write_at_once(
    make_trainer, tmp_path, room
):
    saved = tmp_path / "half.pt"
    make_trainer(CSVLoggerCallback(), make_trainer.save_at(6, saved)).train()
    path = tmp_path / "run" / "training_log.csv"
    header, *rows = path.read_text().splitlines()
    lines = [f"{header},remark", *(f"{row},good" for row in rows)]
    path.write_text("\n".join([*lines, ""]))
    log = FullOnceLocked()
    log.room = room
    resumed = make_trainer(log, num_epochs=3)
    resumed.load_checkpoint(saved)
    resumed.train()
    assert [row["remark"] for row in rows_of(path)] == ["good", "", ""]
    assert not path.with_name("training_log.1.csv").exists()
