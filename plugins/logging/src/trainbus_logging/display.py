"""The two ways to draw progress: a tqdm bar, and plain lines."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainbus_logging.epoch_table import EpochTable, Outcome, as_time, epoch_line
from training import PluginError
from training.plugin import count, guarded

if TYPE_CHECKING:
    from tqdm import tqdm

    from training.plugin import Guarded

#: Of a terminal that does not tell its own, in columns.
USUAL_WIDTH = 80
#: What stands beside the bar besides words: `` 100%|`` and ``| ``.
FRAME = 8


@dataclass
class Stretch:
    """Something that goes batch by batch: an epoch, or the evaluation of a loader.

    Attributes:
        title: what it is called.
        first: batches that were done when it began.
        total: batches in all; None if nobody knows.
        began: when, in seconds of the clock.
    """

    title: str
    first: int
    total: int | None
    began: float

    def rate(self, done: int, now: float) -> float:
        """Return the batches a second up to now; infinite as long as no time is over.

        Args:
            done: batches, those before the beginning included.
            now: in seconds of the same clock.
        """
        elapsed = now - self.began
        return (done - self.first) / elapsed if elapsed > 0 else math.inf


@dataclass(frozen=True)
class Position:
    """How far a stretch is.

    Attributes:
        stretch: what it is.
        done: batches.
        rate: batches a second.
        loss: of training, smoothed; None in an evaluation.
        run_seconds_left: to the planned end of the run, if known.
    """

    stretch: Stretch
    done: int
    rate: float
    loss: float | None = None
    run_seconds_left: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """To the last batch, at this rate."""
        total = self.stretch.total
        if total is None or self.rate <= 0:
            return None
        return max(0, total - self.done) / self.rate


class Bar:
    """A tqdm bar for what is going on, and below it, in columns, what came of it.

    Args:
        stream: a terminal, or where a notebook shows text.
        chosen: metrics of the epochs' lines, the most wanted first.
    Raises:
        PluginError: tqdm is not installed.
    """

    def __init__(self, stream: Guarded, chosen: Sequence[str] = ()) -> None:
        try:
            from tqdm.auto import tqdm
            from tqdm.std import tqdm as plain
        except ImportError as error:
            raise PluginError(
                "the plugin 'progress' needs the package tqdm for a bar; run: pip "
                "install tqdm, or set progress.verbose to 2"
            ) from error
        # The widget of a notebook, where there is one.
        self._make: Any = tqdm if is_notebook() else plain
        self._stream = stream
        self._table = EpochTable(chosen, has_colour=_has_colour(stream))
        self._waiting = 0  # characters that stand there without a bar
        self._bar: tqdm[Any] | None = None

    def start(self, stretch: Stretch) -> None:
        """Begin to show ``stretch``."""
        self.close()
        width = width_of(self._stream)
        self._bar = self._make(
            bar_format=_bar_format(Position(stretch, stretch.first, 0.0), width),
            initial=stretch.first,
            total=stretch.total,
            file=self._stream,
            leave=False,
            ncols=width - 1,  # a full line would wrap
            mininterval=0.0,  # the callback decides when
        )

    def wait(self, title: str) -> None:
        """Say what is going on that cannot be counted.

        A warning that comes meanwhile is written over it.
        """
        self.close()
        self._waiting = len(title)
        self._stream.write(f"\r{title}\r")
        self._stream.flush()

    def note(self, text: str) -> None:
        """Say nothing: the bar shows it."""

    def show(self, position: Position) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        width = width_of(self._stream)
        self._bar.ncols = width - 1
        self._bar.bar_format = _bar_format(position, width)
        self._bar.update(position.done - self._bar.n)
        self._bar.refresh()

    def finish(self, outcome: Outcome) -> None:
        """Replace the bar by the line of an epoch."""
        self.close()
        for line in self._table.lines(outcome, width_of(self._stream)):
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self._waiting:
            self._stream.write(f"\r{' ' * self._waiting}\r")
            self._waiting = 0
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


class Lines:
    """Plain lines, for files and for those who want to keep them."""

    def __init__(self, stream: Guarded, chosen: Sequence[str] = ()) -> None:
        self._stream = stream
        self._chosen = chosen

    def start(self, stretch: Stretch) -> None:
        """Say nothing yet: a log shows how far it is, not that it begins."""

    def wait(self, title: str) -> None:
        """Say nothing: nobody waits for a log."""

    def note(self, text: str) -> None:
        """Write what a bar would show."""
        self._write(text)

    def show(self, position: Position) -> None:
        """Write where it is."""
        done, total = position.done, position.stretch.total
        share = f" ({100 * done / total:.0f}%)" if total else ""
        parts = [
            f"{position.stretch.title}  batch {done}/{total or '?'}{share}",
            f"{position.rate:.3g} batches/s",
        ]
        left = position.seconds_left
        if position.loss is not None:
            parts.append(f"loss {position.loss:.4g}")
            left = position.run_seconds_left
        if left is not None:
            parts.append(f"{as_time(left)} left")
        self._write("  ".join(parts))

    def finish(self, outcome: Outcome) -> None:
        """Write the epoch's line."""
        self._write(epoch_line(outcome, self._chosen))

    def close(self) -> None:
        """Do nothing: lines leave nothing behind."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def view_of(stream: Any, verbose: int, chosen: Sequence[str]) -> Bar | Lines | None:
    """Return how to show progress; None: not at all.

    Args:
        stream: to write to; None: what ``sys.stderr`` is now, or in a notebook
            ``sys.stdout``, which does not look like an error there.
        verbose: 0: silent; 1: a bar for those who can see one; 2: lines.
        chosen: metrics of the epochs' lines, the most wanted first.
    """
    is_given, notebook = stream is not None, is_notebook()
    if not is_given:
        stream = sys.stdout if notebook else sys.stderr
    if verbose == 0 or stream is None:  # a process may have no sys.stderr
        return None
    stream = guarded(stream)
    if verbose == 1 and (stream.isatty() or (notebook and not is_given)):
        return Bar(stream, chosen)
    return Lines(stream, chosen)


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def width_of(stream: Any) -> int:
    """Return the columns of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
    except (AttributeError, OSError, ValueError):
        return USUAL_WIDTH


def _has_colour(stream: Guarded) -> bool:
    # See no-color.org.
    is_refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not is_refused


def _bar_format(position: Position, width: int) -> str:
    """Return a line for tqdm: as many words as leave the bar a share of the room."""
    title, total = position.stretch.title, position.stretch.total
    left = position.seconds_left
    words = [f"{position.done}/{total}"] if total else []
    if position.rate > 0:
        words += [] if left is None else [f"{as_time(left)} left"]
        if not total:
            words.append(count(position.done, "batch"))
        if position.loss is not None:
            words.append(f"loss {position.loss:.4g}")
        if position.run_seconds_left is not None:
            words.append(f"run {as_time(position.run_seconds_left)} left")
        words.append(f"{position.rate:.3g}/s")
    room = width - len(title) - FRAME - (max(5, width // 8) if total else 0)
    shown = ""
    for word in words:
        if len(shown) + len(word) + 2 > room:
            break
        shown += f"  {word}" if shown else word
    title = title.replace("{", "{{").replace("}", "}}")
    if total:
        return f"{title} {{percentage:3.0f}}%|{{bar}}| {shown}"
    return f"{title}  {shown}".rstrip()
