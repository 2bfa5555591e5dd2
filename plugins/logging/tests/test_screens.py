"""What a person sees at a terminal: screens of several widths, kept beside this file.

After a change that is meant, `WRITE_SCREENS=1 pytest` writes them; look at them then.
"""

import fcntl
import io
import os
import pty
import struct
import termios
from pathlib import Path

import pyte
import pytest

from trainbus_logging import ProgressBarCallback
from training import Callback

SCREENS = Path(__file__).parent / "screens"
ACCURACIES = [0.5, 0.25, 0.8725]
ROWS = [
    {
        "val_loss": 0.75 - epoch / 8,
        "accuracy": accuracy,
        "exact_match": accuracy / 2,
        "accuracy/yes_no": 1 - accuracy,
    }
    for epoch, accuracy in enumerate(ACCURACIES)
]


class Terminal:
    """A pseudo-terminal of a given width, and who looks at it."""

    def __init__(self, width, height=16):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        os.set_blocking(self._master, False)
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115
        self.screen = pyte.Screen(width, height)
        self._reader = pyte.ByteStream(self.screen)

    def look(self):
        """Return the lines that stand there now."""
        try:
            while data := os.read(self._master, 65536):
                self._reader.feed(data)
        except BlockingIOError:
            pass
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def colours(self):
        """Return the words that have a colour or are bold, as far as neighbours do."""
        found, last = [], None
        for row in range(self.screen.lines):
            for column in range(self.screen.columns):
                cell = self.screen.buffer[row][column]
                style = (cell.fg, cell.bold)
                if style != ("default", False):
                    found += [[*style, ""]] if style != last else []
                    found[-1][-1] += cell.data
                last = style
        return [tuple(each) for each in found]

    def close(self):
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal():
    made = []

    def make(width):
        made.append(Terminal(width))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Keeps(Callback):
    """Watches accuracy and saves what is better."""

    consumes = ("monitor",)
    hook_api = ">=1.2,<2"
    monitor = "accuracy"

    def __init__(self):
        self.best, self.file = 0.0, None

    def on_metrics(self, metrics):
        self.accuracy = metrics["accuracy"]

    def on_checkpoint(self, trainer):
        if self.accuracy > self.best:
            self.best, self.file = self.accuracy, f"{trainer.step}.pt"

    def summary(self):
        if self.file is None:
            return None
        paths = {"best_checkpoint": self.file}
        return {"best": {"accuracy": self.best}, "paths": paths}


class Measures(Callback):
    """Evaluates batch by batch, and takes pictures on the way."""

    before = ("progress",)  # the clock moves before the bar hears of it

    def __init__(self, look):
        self.now, self.look, self.pictures = 0.0, look, {}

    def metric_names(self):
        return list(ROWS[0])

    def on_setup(self, trainer):
        self.trainer = trainer

    def on_batch_begin(self, batch):
        if self.trainer.epoch == 2 and batch == 3:
            self.pictures["in an epoch"] = self.look()

    def on_batch_end(self):
        self.now += 1.0

    def evaluate(self, trainer):
        for done in range(6):
            self.now += 2.0 * (done > 0)
            trainer.bus.evaluation_progress(trainer, done, 5, "")
            if trainer.epoch == 3 and done == 2:
                self.pictures["in an evaluation"] = self.look()
        return ROWS[trainer.epoch - 1]


def pictures(make_trainer, stream, look, **options):
    """Return what is seen at three moments of a run of three epochs."""
    measures = Measures(look)
    bar = ProgressBarCallback(**options)
    bar.stream, bar.clock = stream, lambda: measures.now
    make_trainer(measures, Keeps(), bar, num_epochs=3).train()
    return measures.pictures | {"in the end": look()}


def as_text(taken):
    return "\n".join(f"--- {moment}\n{text}" for moment, text in taken.items()) + "\n"


def assert_kept(name, text):
    file = SCREENS / f"{name}.txt"
    if os.environ.get("WRITE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_wish_for_monochrome(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def make_trainer(make_trainer, monkeypatch):
    """Return a maker of runs whose epochs take a second by the history."""
    monkeypatch.setattr("training.loop.loop.time.perf_counter", lambda: 0.0)
    return make_trainer


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_of_this_width_shows(make_trainer, terminal, width):
    at = terminal(width)
    taken = pictures(make_trainer, at.stream, at.look)
    assert_kept(f"width-{width}", as_text(taken))
    assert all(len(line) <= width for line in as_text(taken).splitlines())


def test_without_a_terminal_there_is_a_plain_log(make_trainer):
    stream = io.StringIO()
    pictures(make_trainer, stream, stream.getvalue)
    assert_kept("log", stream.getvalue())


def test_chosen_columns_stand_first(make_trainer, terminal):
    at = terminal(40)
    columns = ["accuracy/yes_no", "nonesuch"]
    taken = pictures(make_trainer, at.stream, at.look, columns=columns)
    head = taken["in the end"].splitlines()[0]
    assert head.split() == ["epoch", "accuracy/yes_no", "time"]


def test_only_a_terminal_has_colours(make_trainer, terminal):
    at = terminal(80)
    pictures(make_trainer, at.stream, at.look)
    assert ("green", True, "0.8725*") in at.colours()
    assert ("green", False, "saved") in at.colours()


def test_who_wants_no_colour_gets_none(make_trainer, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    at = terminal(80)
    pictures(make_trainer, at.stream, at.look)
    assert at.colours() == []


def test_a_metric_that_comes_later_gets_a_column_under_a_new_head(
    make_trainer, terminal
):
    at = terminal(80)
    bar = ProgressBarCallback()
    bar.stream = at.stream
    rows = make_trainer.fixed({"a": 1.0}, {"a": 1.0}, {"b": 2.0})
    make_trainer(rows, bar, num_epochs=3).train()
    heads = [line.split() for line in at.look().splitlines() if "epoch" in line]
    assert [("a" in head, "b" in head) for head in heads] == [
        (True, False),
        (True, True),
    ]


def test_a_warning_takes_a_line_of_its_own(make_trainer, terminal):
    class Warns(Callback):
        after = ("progress",)

        def on_setup(self):
            at.stream.write("trainbus: warning: a word\n")

    at = terminal(80)
    bar = ProgressBarCallback()
    bar.stream = at.stream
    make_trainer(Warns(), bar, num_epochs=1).train()
    first, head = at.look().splitlines()[:2]
    assert first == "trainbus: warning: a word"
    assert head.startswith("epoch train_loss")
