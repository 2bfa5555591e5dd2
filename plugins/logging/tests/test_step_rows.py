"""What the CSV log promises about its second file, that of steps, one claim a test."""

import csv
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import trainbus_logging.step_rows
from trainbus_logging import CSVLoggerCallback
from training import CheckpointError, ConfigError
from training.callbacks import Callback
from training.plugin import Readback
from training.testing import assert_no_waits

LOADER = [(torch.ones(2, 3) * i, torch.tensor([0, 1])) for i in range(10)]


class MeasuresEach(Callback):
    """Measures every so many steps, and nothing at an epoch's end."""

    def __init__(self, steps, name="val_loss"):
        self.steps, self.measured = steps, name

    def metric_names(self):
        return [self.measured]

    def on_step_end(self, trainer):
        if trainer.step % self.steps == 0 and not trainer.ends_epoch:
            trainer.request_evaluation("test")

    def evaluate(self, trainer, reason):
        if reason == "epoch_end":
            return None
        return {self.measured: trainer.step / 8}


class MeasuresBefore(MeasuresEach):
    """Measures before each epoch."""

    def on_step_end(self):
        pass

    def on_epoch_begin(self, trainer):
        trainer.request_evaluation("test")


class SavesEach(Callback):
    """Writes a checkpoint at each of some steps, and keeps the rows of that moment."""

    name = "zz_saves"  # after csv, as checkpointing is

    def __init__(self, folder, *steps):
        self.folder, self.steps = folder, steps

    def on_step_end(self, trainer):
        if trainer.step in self.steps:
            trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer, reason):
        if reason == "test":
            trainer.save_checkpoint(self.folder / f"{trainer.step}.pt")
            path = self.folder / "log.steps.csv"
            rows = path.read_bytes() if path.exists() else b""
            (self.folder / f"{trainer.step}.csv").write_bytes(rows)


class Dies(Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise RuntimeError("killed")


@pytest.fixture
def run(make_trainer, tmp_path):
    """Train an epoch of ten steps unless told otherwise; return the trainer."""

    def run(*callbacks, resume=None, every=3, **options):
        options = {"num_epochs": 1, "loader": LOADER, **options}
        csv_log = CSVLoggerCallback(tmp_path / "log.csv", every_n_steps=every)
        trainer = make_trainer(csv_log, *callbacks, **options)
        if resume:
            trainer.load_checkpoint(resume)
        trainer.train()
        return trainer

    return run


def rows_of(folder, name="log.steps.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder, name):
    return [row[name] for row in rows_of(folder)]


def test_each_nth_step_has_a_row_with_every_digit(run, make_trainer, tmp_path):
    losses = {}

    class Notes(Callback):
        def on_step_end(self, trainer, logs):
            losses[trainer.step] = str(logs["loss"])

    run(Notes(), max_grad_norm=1.0, num_epochs=2)
    header = (tmp_path / "log.steps.csv").read_text().splitlines()[0]
    assert header == "step,epoch,loss,lr,grad_norm"
    steps = [3, 6, 9, 12, 15, 18]
    assert column(tmp_path, "step") == [str(step) for step in steps]
    assert column(tmp_path, "epoch") == ["1", "1", "1", "2", "2", "2"]
    assert column(tmp_path, "loss") == [losses[step] for step in steps]
    assert column(tmp_path, "lr") == ["0.1"] * 6
    assert all(float(each) > 0 for each in column(tmp_path, "grad_norm"))


def test_the_file_of_epochs_is_the_one_without_the_option(run, tmp_path):
    def without_clock():
        return [{**row, "seconds": ""} for row in rows_of(tmp_path, "log.csv")]

    run(MeasuresEach(2), every=None)
    assert not (tmp_path / "log.steps.csv").exists()
    plain = without_clock()
    run(MeasuresEach(2))
    assert without_clock() == plain


def test_a_measurement_stands_in_the_row_of_its_step_or_in_one_of_its_own(
    run, tmp_path
):
    run(MeasuresEach(2))
    found = [(r["step"], r["loss"] != "", r["val_loss"]) for r in rows_of(tmp_path)]
    assert found == [
        ("2", False, "0.25"),
        ("3", True, ""),
        ("4", False, "0.5"),
        ("6", True, "0.75"),
        ("8", False, "1.0"),
        ("9", True, ""),
    ]
    assert set(column(tmp_path, "epoch")) == {"1"}


def test_what_is_measured_at_an_epochs_end_stands_there_too(
    run, make_trainer, tmp_path
):
    run(make_trainer.fixed({"val_loss": 0.5}, {"val_loss": 0.25}), num_epochs=2)
    found = [(r["step"], r["epoch"]) for r in rows_of(tmp_path) if r["val_loss"]]
    assert found == [("10", "1"), ("20", "2")]
    assert "train_loss" not in rows_of(tmp_path)[0]


def test_what_is_measured_between_two_epochs_joins_the_row_that_is_written(
    run, tmp_path
):
    run(MeasuresBefore(0), num_epochs=2, every=10)
    found = [(r["step"], r["epoch"], r["val_loss"]) for r in rows_of(tmp_path)]
    assert found == [("0", "1", "0.0"), ("10", "1", "1.25"), ("20", "2", "")]


def test_names_that_a_step_has_too_are_told_apart(run, tmp_path):
    def step(model, batch):
        loss = cross_entropy(model(batch[0]), batch[1])
        return {"loss": loss, "accuracy": 0.5, "step": 7.0}

    run(MeasuresEach(3, "accuracy"), step_fn=step, loss_fn=None)
    row = rows_of(tmp_path)[0]
    assert (row["step"], row["train/step"]) == ("3", "7.0")
    assert (row["train/accuracy"], row["accuracy"]) == ("0.5", "0.375")
    run(MeasuresEach(3, "loss"))
    row = rows_of(tmp_path)[0]
    assert row["metric/loss"] == "0.375" != row["loss"]


def test_a_value_that_is_no_number_is_an_empty_cell_with_a_note(run, tmp_path):
    bad = [*LOADER[:2], (torch.full((2, 3), math.nan), LOADER[0][1]), *LOADER[3:]]
    run(MeasuresEach(3), loader=bad, nonfinite="skip")
    first, second, _ = rows_of(tmp_path)
    assert (first["loss"], first["notes"]) == ("", "loss=nan")
    assert (first["val_loss"], second["notes"]) == ("0.375", "")


@pytest.mark.parametrize("every", [1, 3, 4])
@pytest.mark.parametrize("saved", [2, 3, 4, 6, 10, 13])
@pytest.mark.parametrize("waiting", [1, 100])
def test_a_resumed_run_leaves_the_very_file_of_an_uninterrupted_one(
    run, tmp_path, monkeypatch, saved, every, waiting
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_WAITING", waiting)
    path = tmp_path / "log.steps.csv"
    options = {"every": every, "num_epochs": 2}
    run(MeasuresEach(4), **options)
    whole = path.read_bytes()
    path.unlink()

    killed = MeasuresEach(4), SavesEach(tmp_path, saved), Dies(saved + 3)
    with pytest.raises(RuntimeError, match="killed"):
        run(*killed, **options)
    checkpoint = tmp_path / f"{saved}.pt"
    assert path.read_bytes() != whole
    run(MeasuresEach(4), resume=checkpoint, **options)
    assert path.read_bytes() == whole
    # Once more: from rows to the end, and from those that a killed machine left.
    for left in (whole, (tmp_path / f"{saved}.csv").read_bytes()):
        path.write_bytes(left)
        run(MeasuresEach(4), resume=checkpoint, **options)
        assert path.read_bytes() == whole


def test_a_row_is_in_the_file_before_the_checkpoint_that_counts_its_step(run, tmp_path):
    seen = []

    class Looks(SavesEach):
        name = "checkpointing"

        def on_checkpoint(self, trainer, reason):
            super().on_checkpoint(trainer, reason)
            seen.append((trainer.step, rows_of(tmp_path)[-1]["step"]))

    run(Looks(tmp_path, 3, 6))
    assert seen == [(3, "3"), (6, "6"), (10, "9")]


def test_a_run_that_fails_leaves_the_rows_up_to_there(run, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        run(Dies(5), every=1)
    assert column(tmp_path, "step") == ["1", "2", "3", "4", "5"]


def test_rows_are_written_a_hundred_at_a_time_and_with_each_measurement(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_WAITING", 4)
    path, seen = tmp_path / "log.steps.csv", []

    class Looks(Callback):
        def on_batch_begin(self):
            seen.append(len(rows_of(tmp_path)) if path.exists() else 0)

    run(Looks(), MeasuresEach(7), every=1)
    assert seen == [0, 0, 0, 0, 0, 4, 4, 7, 7, 7]


@pytest.mark.parametrize("waiting", [1, 100])
def test_no_row_makes_a_run_wait_for_the_device(monkeypatch, waiting):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_WAITING", waiting)
    assert_no_waits(CSVLoggerCallback(every_n_steps=1), MeasuresEach(3))


def test_a_row_whose_values_are_on_their_way_is_not_waited_for_before_a_checkpoint(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainbus_logging.step_rows, "MOST_WAITING", 1)
    monkeypatch.setattr(Readback, "is_here", property(lambda self: False))
    path, seen = tmp_path / "log.steps.csv", []

    class Looks(Callback):
        def on_batch_begin(self):
            seen.append(path.exists())

    run(Looks(), MeasuresEach(3), every=1)
    assert seen == [False] * 10
    assert len(rows_of(tmp_path)) == 10


def test_a_fresh_run_keeps_an_earlier_file_of_steps(run, tmp_path):
    run(every=5)
    earlier = (tmp_path / "log.steps.csv").read_text()
    run(every=2)
    assert (tmp_path / "log.steps.1.csv").read_text() == earlier
    assert column(tmp_path, "step") == ["2", "4", "6", "8", "10"]


@pytest.mark.parametrize("lost", ["the file", "the row", "nothing: it is another's"])
def test_a_file_without_the_latest_row_begins_anew_and_is_kept_beside(
    run, tmp_path, caplog, lost
):
    path = tmp_path / "log.steps.csv"
    run(SavesEach(tmp_path, 6))
    if lost == "the file":
        path.unlink()
    elif lost == "the row":
        path.write_text("".join(path.read_text().splitlines(True)[:2]))
    else:
        run(loader=[(x + 1, y) for x, y in LOADER])
        (tmp_path / "log.steps.1.csv").unlink()
    earlier = path.read_text() if path.exists() else None
    run(resume=tmp_path / "6.pt")
    assert column(tmp_path, "step") == ["9"]
    assert "no row of step 6 as this run wrote it" in caplog.text
    aside = tmp_path / "log.steps.1.csv"
    assert (aside.read_text() if aside.exists() else None) == earlier


def test_a_column_and_rows_of_a_file_that_was_removed_are_made_with_the_next_rows(
    run, tmp_path
):
    class Removes(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 5:
                (tmp_path / "log.steps.csv").unlink()

    run(Removes(), MeasuresEach(4), every=2)
    assert column(tmp_path, "step") == ["6", "8", "10"]


def test_a_torn_last_line_is_dropped_on_resume(run, tmp_path):
    path = tmp_path / "log.steps.csv"
    run(SavesEach(tmp_path, 6))
    whole = path.read_bytes()
    path.write_bytes(whole + b"10,1,0.")
    run(resume=tmp_path / "6.pt")
    assert path.read_bytes() == whole


def test_notes_of_a_row_that_is_measured_later_stay(run, tmp_path):
    class Bad(MeasuresBefore):
        def evaluate(self, trainer, reason):
            return super().evaluate(trainer, reason) and {"val_loss": math.nan}

    bad = [*LOADER[:9], (torch.full((2, 3), math.nan), LOADER[0][1])]
    run(Bad(0), loader=bad, nonfinite="skip", num_epochs=2, every=10)
    notes = ["val_loss=nan", "loss=nan; val_loss=nan", "loss=nan"]
    assert column(tmp_path, "notes") == notes


class FillsTheDisk(Callback):
    """Leaves room for the beginning of a row alone, at the checkpoint of a step."""

    before = ("csv",)

    def __init__(self, room, path, step):
        self.room, self.path, self.step = room, path, step

    def on_checkpoint(self, trainer):
        is_full = trainer.step == self.step
        self.room(self.path.stat().st_size + 9 if is_full else None)


def test_rows_that_were_written_in_part_are_made_up_with_the_next_ones(
    run, tmp_path, room
):
    path = tmp_path / "log.steps.csv"
    run(every=1, num_epochs=3)
    whole = path.read_bytes()
    run(FillsTheDisk(room, path, 20), every=1, num_epochs=3)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("steps", [0, True, 1.5, "2"])
def test_other_numbers_of_steps_are_refused_in_a_sentence(steps):
    with pytest.raises(ConfigError, match=r"every_n_steps") as caught:
        CSVLoggerCallback(every_n_steps=steps)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_of_steps_is_refused(make_trainer, tmp_path):
    (tmp_path / "log.steps.csv").mkdir()
    callback = CSVLoggerCallback(tmp_path / "log.csv", every_n_steps=1)
    with pytest.raises(ConfigError, match=r"csv\.every_n_steps writes to .* a folder"):
        make_trainer(callback).train()
    make_trainer(CSVLoggerCallback(tmp_path / "log.csv")).train()


@pytest.mark.parametrize("row", [3, {"step": "x"}, {"step": 3}, {"loss": "1.0"}])
def test_a_state_that_is_no_row_is_refused(row):
    with pytest.raises(CheckpointError, match="last_row"):
        CSVLoggerCallback().load_state_dict({"last_row": row})
