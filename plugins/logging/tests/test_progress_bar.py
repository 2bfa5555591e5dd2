"""What ProgressBarCallback promises, with a clock that only tests move."""

import io
import sys
import types

import pytest

from trainbus_logging import ProgressBarCallback
from trainbus_logging.epoch_table import Outcome, as_time, epoch_line
from training import Callback, ConfigError, DataError
from training.plugin import LazyLogs, Readback


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


class Clock(Callback):
    """Advances by some seconds at each batch, before the bar hears of it."""

    before = ("progress",)

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def on_batch_end(self):
        self.now += self.seconds


def run(make_trainer, verbose, stream, seconds=1.0, callbacks=(), **options):
    clock = Clock(seconds)
    bar = ProgressBarCallback(verbose)
    bar.stream, bar.clock = stream, lambda: clock.now
    trainer = make_trainer(bar, clock, *callbacks, **options)
    trainer.train()
    return stream.getvalue()


def test_silent_writes_nothing(make_trainer):
    assert run(make_trainer, 0, Terminal()) == ""


def test_a_terminal_gets_a_bar_and_a_line_an_epoch(make_trainer):
    written = run(make_trainer, 1, Terminal())
    assert "\r" in written
    for shown in ("epoch 1/2", "4/4", "loss 0.", "1/s", "run 0:04 left"):
        assert shown in written
    lines = [line.split("\r")[-1].split() for line in written.split("\n")]
    assert [line[0] for line in lines if line] == ["\x1b[2mepoch", "1/2", "2/2"]


def test_elsewhere_there_are_lines_without_control_characters(make_trainer):
    written = run(make_trainer, 1, io.StringIO())
    assert "\r" not in written
    assert "\x1b" not in written
    lines = written.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert lines[0].endswith("0:04 left")
    assert "train_loss 0." in lines[0]


@pytest.mark.parametrize(
    ("verbose", "seconds", "count"),
    [
        pytest.param(1, 1.0, 0, id="verbose 1: not within 10 seconds"),
        pytest.param(1, 10.0, 4, id="verbose 1: every 10 seconds"),
        pytest.param(2, 1.0, 2, id="verbose 2: every 2 seconds"),
        pytest.param(2, 0.1, 0, id="verbose 2: not within 2 seconds"),
    ],
)
def test_lines_come_at_these_times(make_trainer, verbose, seconds, count):
    written = run(make_trainer, verbose, io.StringIO(), seconds, num_epochs=1)
    lines = [line for line in written.splitlines() if "batches/s" in line]
    assert len(lines) == count


def test_a_line_says_share_rate_loss_and_time_left(make_trainer):
    first = run(make_trainer, 2, Terminal(), 2.0).splitlines()[0]
    assert first.startswith("epoch 1/2  batch 1/4 (25%)  0.5 batches/s  loss 0.")
    assert first.endswith("0:14 left")  # 7 of 8 steps are left, at 2 seconds each


def test_a_resumed_epoch_starts_where_it_was(make_trainer, tmp_path):
    saved = tmp_path / "half.pt"
    make_trainer(make_trainer.save_at(6, saved)).train()
    for stream, shown in (
        (io.StringIO(), "epoch 2/2  resumed at batch 2/4"),
        (Terminal(), "epoch 2/2  50%"),
    ):
        bar = ProgressBarCallback()
        bar.stream = stream
        trainer = make_trainer(bar)
        trainer.load_checkpoint(saved)
        trainer.train()
        assert shown in stream.getvalue()


def test_a_loader_without_a_length_has_no_share_and_no_end(make_trainer):
    class Unknown(list):
        __len__ = None

    data = Unknown(make_trainer().train_dataloader)
    first = run(make_trainer, 2, io.StringIO(), 2.0, loader=data).splitlines()[0]
    assert first.startswith("epoch 1/2  batch 1/?  0.5 batches/s")
    assert "left" not in first
    assert "epoch 1/2" in run(make_trainer, 1, Terminal(), 2.0, loader=data)


class Logs(LazyLogs):
    """Logs that count how often a value is asked for."""

    __slots__ = ()
    looks = 0

    def later(self, name):
        Logs.looks += 1
        return super().later(name)


def test_the_loss_is_read_once_a_refresh_however_fast_batches_are(make_trainer):
    data = make_trainer().train_dataloader * 250
    bar, clock = ProgressBarCallback(), Clock(0.001)
    bar.stream, bar.clock = Terminal(), lambda: clock.now
    trainer = make_trainer(bar, clock, loader=data)
    bar.on_setup(trainer)
    bar.on_train_begin(trainer)
    bar.on_epoch_begin(trainer)
    Logs.looks, clock_reads = 0, 0
    for batch in range(1000):
        clock.on_batch_end()
        before = bar._next_look
        bar.on_batch_end(trainer, batch, Logs({"loss": 1.0}))
        clock_reads += bar._next_look != before
    bar.on_close(trainer)
    assert 3 <= Logs.looks <= 6  # one second in all, 0.2 seconds apart, and the end
    assert clock_reads <= 40


def test_a_loss_on_its_way_is_shown_when_it_arrives_and_never_waited_for(
    make_trainer, monkeypatch
):
    """A device that is two batches behind: reading earlier would wait for it."""
    bar, clock = ProgressBarCallback(2), Clock(2.0)
    bar.stream, bar.clock = io.StringIO(), lambda: clock.now
    trainer = make_trainer(bar, clock)
    arrived = []

    def value(self):
        assert self in arrived, "waited"
        return 1.0

    monkeypatch.setattr(Readback, "is_here", property(lambda self: self in arrived))
    monkeypatch.setattr(Readback, "value", value)
    bar.on_setup(trainer)
    bar.on_train_begin(trainer)
    bar.on_epoch_begin(trainer)
    shown = []
    for batch in range(6):
        clock.on_batch_end()
        bar.on_batch_end(trainer, batch, LazyLogs({"loss": 1.0}))
        shown.append(bar.stream.getvalue().count("loss"))
        if batch in (2, 4):
            arrived.append(bar._loss_due)
    assert shown == [0, 0, 0, 1, 1, 2]
    bar.on_close(trainer)


def test_an_error_leaves_the_terminal_clean(make_trainer):
    bar = ProgressBarCallback()
    bar.stream = Terminal()
    data = [*make_trainer().train_dataloader, ("bad", "batch")]
    with pytest.raises(DataError, match="counts by labels"):
        make_trainer(bar, loader=data).train()
    assert bar._view is None


def test_an_evaluation_inside_an_epoch_gives_the_epoch_its_bar_back(make_trainer):
    class Asks(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 2:
                trainer.request_evaluation("now")

        def evaluate(self, trainer, reason):
            for done in range(4):
                trainer.bus.evaluation_progress(trainer, done, 3, "clean")

    bar, clock = ProgressBarCallback(), Clock(1.0)
    bar.stream, bar.clock = Terminal(), lambda: clock.now
    make_trainer(Asks(), bar, clock, num_epochs=1).train()
    written = bar.stream.getvalue()
    assert "evaluating clean 100%" in written
    assert written.index("2/4") < written.index("3/3") < written.index("4/4")


def test_a_notebook_gets_the_widget_of_tqdm(make_trainer, monkeypatch, capsys):
    import tqdm.auto

    class Widget(tqdm.auto.tqdm):
        made = 0

        def __init__(self, *args, **options):
            Widget.made += 1
            super().__init__(*args, **options)

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr(tqdm.auto, "tqdm", Widget)
    make_trainer(ProgressBarCallback()).train()
    assert Widget.made == 2  # one an epoch
    printed = capsys.readouterr()
    assert "train_loss" in printed.out
    assert not printed.err


@pytest.mark.parametrize("verbose", [3, -1, "1", True])
def test_an_unknown_verbosity_is_refused(verbose):
    with pytest.raises(ConfigError, match=r"progress\.verbose"):
        ProgressBarCallback(verbose)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (65, "1:05"), (3723, "1:02:03"), (float("inf"), "?")],
)
def test_times_read(seconds, text):
    assert as_time(seconds) == text


def test_an_epoch_line_shows_metrics_and_hides_counters():
    row = {"epoch": 1, "step": 4, "update": 4, "lr": 3e-5, "val_loss": 0.12345}
    line = epoch_line(Outcome({**row, "seconds": 61.0}, num_epochs=5))
    assert line == "epoch 1/5  val_loss 0.1235  lr 3e-05  1:01"


def test_a_plugin_that_cannot_say_what_it_has_costs_marks_and_one_warning(
    make_trainer, caplog
):
    class Broken(Callback):
        name, hook_api = "broken", ">=1.1,<2"

        def summary(self):
            raise OSError("boom")

    written = run(make_trainer, 1, io.StringIO(), callbacks=(Broken(),))
    assert "epoch 2/2" in written
    (told,) = [each for each in caplog.messages if "marked" in each]
    assert "OSError('boom'), raised by plugin 'broken' (" in told
