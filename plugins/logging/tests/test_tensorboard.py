"""What TensorBoardCallback promises, read back with TensorBoard's own reader."""

import json
import math

import pytest

from trainbus_logging import TensorBoardCallback
from training import Callback, ConfigError
from training.plugin import LazyLogs, Readback

reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def load(folder):
    accumulator = reader.EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def points(accumulator, tag):
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def backdate(folder):
    """Make the event files look as old as they are in real life at a resume."""
    for index, path in enumerate(folder.glob("events.*")):
        path.rename(path.with_name(f"events.out.tfevents.0000000001.test.{index}"))


def text(accumulator, tag):
    events = accumulator.Tensors(f"{tag}/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in events]


@pytest.mark.parametrize("is_late", [False, True], ids=["arrived", "on the way"])
def test_a_point_is_written_without_waiting_for_it_before_the_epoch_ends(
    make_trainer, tmp_path, monkeypatch, is_late
):
    waited = []
    value = Readback.value

    def counted(self):
        waited.append(trainer.step)
        return value(self)

    if is_late:
        monkeypatch.setattr(Readback, "is_here", property(lambda self: False))
    monkeypatch.setattr(Readback, "value", counted)
    trainer = make_trainer(TensorBoardCallback(every_n_steps=2), num_epochs=1)
    trainer.train()
    assert waited == ([4] * 3 if is_late else [1, 2, 4])
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert [step for step, _ in points(log, "loss/train")] == [1, 2, 4]


def test_curves_metrics_and_settings_are_there(make_trainer, tmp_path):
    measured = make_trainer.fixed(
        {"val_loss": 0.5}, {"val_loss": 0.25, "accuracy/a": 1}
    )
    trainer = make_trainer(
        TensorBoardCallback(every_n_steps=3),
        measured,
        max_grad_norm=1.0,
        metadata={"task": "vqa", "root": "图/\udcff"},
    )
    trainer.train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert [step for step, _ in points(log, "loss/train")] == [1, 3, 6]
    assert points(log, "lr/0") == [(s, pytest.approx(0.1)) for s in (1, 3, 6)]
    assert len(points(log, "grad_norm")) == 3
    assert points(log, "loss/val") == [(4, 0.5), (8, 0.25)]
    assert points(log, "metric/accuracy/a") == [(8, 1.0)]
    assert points(log, "loss/train_epoch") == [
        (row["step"], pytest.approx(row["train_loss"])) for row in trainer.history
    ]
    assert [step for step, _ in points(log, "time/epoch_seconds")] == [4, 8]
    assert [step for step, _ in points(log, "time/step_seconds")] == [1, 3, 6]
    assert "metric/train_loss" not in log.Tags()["scalars"]
    settings = text(log, "run/settings")[0].removeprefix("```json\n")
    assert json.loads(settings.removesuffix("\n```"))["num_epochs"] == 2
    config = text(log, "run/config")[0]
    assert '"task": "vqa"' in config
    assert r'"root": "图/\udcff"' in config


def test_every_parameter_group_has_its_rate(make_trainer, tmp_path):
    make_trainer(TensorBoardCallback(), groups=2, num_epochs=1).train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert points(log, "lr/0") == [(1, pytest.approx(0.1))]
    assert points(log, "lr/1") == [(1, pytest.approx(0.05))]


class Moves(Callback):
    """A schedule of one's own."""

    mutates = ("optimizer",)

    def __init__(self, name):
        self.name = name

    def on_step_end(self, trainer):
        for group in trainer.optimizer.param_groups:
            group["lr"] /= 2


@pytest.mark.parametrize("name", ["a_schedule", "z_schedule"])
def test_a_rate_is_the_used_one_whatever_the_plugin_that_moves_it_is_called(
    make_trainer, tmp_path, name, caplog
):
    board = TensorBoardCallback(every_n_steps=1)
    make_trainer(board, Moves(name), groups=2, num_epochs=1).train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    for tag, rate in (("lr/0", 0.1), ("lr/1", 0.05)):
        used = [(step + 1, pytest.approx(rate / 2**step)) for step in range(4)]
        assert points(log, tag) == used
    # Of a relation that nobody has written.
    assert "which is not there" not in caplog.text


def test_a_value_that_is_no_number_is_a_note_and_no_point(make_trainer, tmp_path):
    bad = make_trainer.fixed({"val_loss": math.nan}, {"val_loss": 0.5})
    make_trainer(TensorBoardCallback(tmp_path / "logs"), bad).train()
    log = load(tmp_path / "logs" / "run")
    assert points(log, "loss/val") == [(8, 0.5)]
    assert text(log, "notes") == ["step 4: loss/val is nan"]


class Looks(LazyLogs):
    """Logs that count how often a value is asked for."""

    count = 0

    def later(self, name):
        self.count += 1
        return super().later(name)


def test_nothing_is_read_from_the_device_between_the_points(make_trainer):
    board = TensorBoardCallback(every_n_steps=50)
    trainer = make_trainer(board)
    for step, looks in ((2, 0), (49, 0), (50, 1), (51, 0)):
        trainer.state.progress.step = step
        logs = Looks({"loss": 1.0, "lr": 0.1})
        board.on_step_end(trainer, logs)
        assert logs.count == looks


class Away(Callback):
    """Puts a file in the place of the event files' folder for the second epoch."""

    def on_epoch_begin(self, trainer):
        folder = trainer.save_dir / "tensorboard" / "run"
        if trainer.epoch == 1:
            folder.rename(trainer.save_dir / "aside")
            folder.touch()
        if trainer.epoch == 2:
            folder.unlink()
            (trainer.save_dir / "aside").rename(folder)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_event_files_that_cannot_be_written_for_a_time_cost_only_that_time(
    make_trainer, tmp_path, caplog
):
    board = TensorBoardCallback(every_n_steps=1)
    make_trainer(board, Away(), num_epochs=4).train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert [step for step, _ in points(log, "loss/train_epoch")] == [4, 12, 16]
    assert {1, 2, 3, *range(9, 17)} <= {step for step, _ in points(log, "loss/train")}
    (told,) = caplog.messages
    assert "values are lost until it can be, and then go to a new event file" in told


class Freed(Callback):
    """Puts a file in the way of the event files until the first epoch ends."""

    before = ("tensorboard",)

    def on_epoch_begin(self, trainer):
        if trainer.epoch == 0:
            (trainer.save_dir / "tensorboard").mkdir(parents=True)
            (trainer.save_dir / "tensorboard" / "run").touch()

    def on_epoch_end(self, trainer):
        if trainer.epoch == 1:
            (trainer.save_dir / "tensorboard" / "run").unlink()


def test_event_files_that_cannot_be_begun_are_as_soon_as_they_can_be(
    make_trainer, tmp_path, caplog
):
    make_trainer(Freed(), TensorBoardCallback(every_n_steps=1), num_epochs=2).train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert [step for step, _ in points(log, "loss/train_epoch")] == [4, 8]
    (told,) = caplog.messages
    assert "/run cannot be written ([Errno 17] File exists" in told


def test_a_second_run_in_the_same_folder_stays_apart(make_trainer, tmp_path):
    for epochs in (1, 2, 3):
        make_trainer(TensorBoardCallback(tmp_path / "logs"), num_epochs=epochs).train()
    folders = [tmp_path / "logs" / name for name in ("run", "run-2", "run-3")]
    counts = [len(points(load(folder), "loss/train_epoch")) for folder in folders]
    assert counts == [1, 2, 3]


@pytest.mark.parametrize("runs_before", [0, 1], ids=["its own", "run-2"])
def test_a_resumed_run_goes_on_in_its_folder_without_double_points(
    make_trainer, tmp_path, runs_before
):
    logs, saved = tmp_path / "logs", tmp_path / "half.pt"
    for _ in range(runs_before):
        make_trainer(TensorBoardCallback(logs)).train()
    save = make_trainer.save_at(6, saved)
    make_trainer(TensorBoardCallback(logs, every_n_steps=1), save).train()
    folder = logs / ("run-2" if runs_before else "run")
    backdate(folder)
    resumed = make_trainer(TensorBoardCallback(logs, every_n_steps=1))
    resumed.load_checkpoint(saved)
    resumed.train()
    log = load(folder)
    assert [step for step, _ in points(log, "loss/train")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(points(log, "loss/train_epoch")) == 2


def test_a_run_whose_folder_was_renamed_goes_on_in_its_curves(make_trainer, tmp_path):
    save = make_trainer.save_at(6, tmp_path / "run" / "half.pt")
    make_trainer(TensorBoardCallback(every_n_steps=1), save).train()
    moved = (tmp_path / "run").rename(tmp_path / "other")
    backdate(moved / "tensorboard" / "run")
    resumed = make_trainer(TensorBoardCallback(every_n_steps=1))
    resumed.save_dir = moved
    resumed.load_checkpoint(moved / "half.pt")
    resumed.train()
    (folder,) = (moved / "tensorboard").iterdir()
    assert [step for step, _ in points(load(folder), "loss/train")] == [*range(1, 9)]


def test_a_branch_in_a_folder_of_its_own_leaves_shared_curves_alone(
    make_trainer, tmp_path
):
    logs, saved = tmp_path / "logs", tmp_path / "half.pt"
    save = make_trainer.save_at(6, saved)
    make_trainer(TensorBoardCallback(logs, every_n_steps=1), save).train()
    branch = make_trainer(TensorBoardCallback(logs, every_n_steps=1))
    branch.save_dir = tmp_path / "branch"
    branch.load_checkpoint(saved)
    branch.train()
    assert len(points(load(logs / "run"), "loss/train")) == 8
    assert len(points(load(logs / "branch"), "loss/train")) == 2


class Twice(Callback):
    """Has each epoch measured once more, which fails while ``fails`` is true."""

    def __init__(self, fails, path):
        self.fails, self.path = fails, path

    def metric_names(self):
        return ["accuracy"]

    def evaluate(self, reason):
        if self.fails and reason == "again":
            raise OSError("no such picture")
        return {"accuracy": float(reason == "again")}

    def on_epoch_end(self, trainer):
        trainer.request_evaluation("again")

    def on_checkpoint(self, trainer):
        trainer.save_checkpoint(self.path)


def test_a_resumed_run_writes_what_it_measures_where_no_epoch_is_left(
    make_trainer, tmp_path
):
    saved = tmp_path / "end.pt"
    with pytest.raises(OSError, match="no such picture"):
        make_trainer(TensorBoardCallback(), Twice(True, saved), num_epochs=1).train()
    resumed = make_trainer(TensorBoardCallback(), Twice(False, saved), num_epochs=1)
    resumed.load_checkpoint(saved)
    resumed.train()
    log = load(tmp_path / "run" / "tensorboard" / "run")
    assert points(log, "metric/accuracy") == [(4, 0.0), (4, 1.0)]


def test_a_cadence_below_one_is_refused():
    with pytest.raises(ConfigError, match="every_n_steps is 0"):
        TensorBoardCallback(every_n_steps=0)


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    make_trainer, tmp_path
):
    (tmp_path / "file").write_text("")
    trainer = make_trainer(TensorBoardCallback(tmp_path / "file" / "logs"))
    with pytest.raises(ConfigError, match=r"tensorboard\.log_dir"):
        trainer.train()
    assert trainer.step == 0
