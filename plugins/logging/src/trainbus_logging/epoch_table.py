"""The line that an epoch leaves: in columns at a terminal, with names in a log."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Columns of a history row that are shown elsewhere or not at all.
HIDDEN = ("epoch", "step", "update", "seconds")
#: Shown after the chosen ones, before all others; and after those.
FIRST, LAST = ("train_loss", "val_loss"), ("lr",)
#: The narrowest terminal that shows the time left in the run, in columns.
WIDTH_FOR_LEFT = 60
#: Widths of a number such as 0.1235 or 1.2e-05, and of a time such as 1:02:03.
NUMBER, TIME = 7, 7
SAVED = "saved"
DIM, BOLD_GREEN, GREEN, PLAIN = "\x1b[2m", "\x1b[1;32m", "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True)
class Outcome:
    """What an epoch came to.

    Attributes:
        row: of the history.
        num_epochs: planned.
        seconds_left: to the planned end of the run, if known.
        best: metrics whose value in ``row`` is the best so far.
        is_saved: whether a checkpoint was written since the last one's.
    """

    row: Mapping[str, Any]
    num_epochs: int
    seconds_left: float | None = None
    best: Collection[str] = ()
    is_saved: bool = False


class EpochTable:
    """Lines in columns that fit a terminal, under a head wherever that changes.

    Metrics that find no room are in the history all the same. The chosen ones come
    first, then the losses.

    Args:
        chosen: metrics, the most wanted first.
        has_colour: whether the head, new bests and files are coloured.
    """

    def __init__(self, chosen: Sequence[str] = (), has_colour: bool = False) -> None:
        self._chosen = chosen
        self._has_colour = has_colour
        self._names: dict[str, None] = {}
        self._head = ""

    def lines(self, outcome: Outcome, width: int) -> list[str]:
        """Return the epoch's line, below a head if it is another one than before.

        Args:
            outcome: of the epoch.
            width: of the terminal, in columns.
        """
        row, total = outcome.row, outcome.num_epochs
        self._names |= dict.fromkeys(in_order(row, self._chosen))
        epochs = max(len("epoch"), 2 * len(str(total)) + 1)
        names = self._that_fit(width, epochs)
        head = "epoch".rjust(epochs)
        line = f"{row['epoch']}/{total}".rjust(epochs)
        for name in names:
            size = max(len(name), NUMBER)
            head += f" {name:>{size}} "
            value = as_number(row[name]) if name in row else ""
            shown = f"{value}*" if name in outcome.best else f"{value} "
            gap = " " * (size + 2 - len(shown))
            line += gap + (self._in(BOLD_GREEN, shown) if shown[-1] == "*" else shown)
        head += f" {'time':>{TIME}}"
        line += f" {as_time(row.get('seconds', math.nan)):>{TIME}}"
        if width >= WIDTH_FOR_LEFT:
            left = as_time(outcome.seconds_left) if outcome.seconds_left else ""
            head += f"  {'left':>{TIME}}"
            line += f"  {left:>{TIME}}"
        if outcome.is_saved:
            line += f"  {self._in(GREEN, SAVED)}"
        is_new, self._head = head != self._head, head
        return [*([self._in(DIM, head)] if is_new else []), line.rstrip()]

    def _that_fit(self, width: int, epochs: int) -> list[str]:
        """Return metrics, the most wanted first; at least that one."""
        room = width - epochs - (1 + TIME) - (2 + len(SAVED))
        room -= (2 + TIME) * (width >= WIDTH_FOR_LEFT)
        fitting: list[str] = []
        for name in in_order(self._names, self._chosen):
            size = max(len(name), NUMBER) + 2
            if size <= room or not fitting:
                fitting.append(name)
                room -= size
        return fitting

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._has_colour else text


def epoch_line(outcome: Outcome, chosen: Sequence[str] = ()) -> str:
    """Return the line of a log: every metric with its name, time, and what is left."""
    row = outcome.row
    parts = [f"epoch {row['epoch']}/{outcome.num_epochs}"]
    for name in in_order(row, chosen):
        value = row[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{name} {text}{'*' * (name in outcome.best)}")
    if "seconds" in row:
        parts.append(as_time(row["seconds"]))
    if outcome.seconds_left:
        parts.append(f"{as_time(outcome.seconds_left)} left")
    if outcome.is_saved:
        parts.append(SAVED)
    return "  ".join(parts)


def in_order(names: Collection[str], chosen: Sequence[str] = ()) -> list[str]:
    """Return the metrics among ``names``: chosen ones, losses, others, the rate."""
    wanted = [name for name in (*chosen, *FIRST) if name in names]
    others = [name for name in names if name not in (*HIDDEN, *LAST)]
    last = [name for name in LAST if name in names]
    return list(dict.fromkeys([*wanted, *others, *last]))


def as_number(value: Any) -> str:
    """Return a metric in at most 7 characters, as far as its size allows."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        return f"{value:.1e}"
    return f"{value:.{4 if size < 100 else 1}f}"


def as_time(seconds: float) -> str:
    """Return ``"0:05"``, ``"12:34"`` or ``"1:02:03"``; ``"?"`` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
