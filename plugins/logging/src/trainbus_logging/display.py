"""The two ways to draw progress: a tqdm bar, and plain lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training import PluginError

if TYPE_CHECKING:
    from tqdm import tqdm

    from training.plugin import Guarded

#: Columns of a history row that the epoch line shows elsewhere or not at all.
_HIDDEN = ("epoch", "step", "update", "seconds")


class Bar:
    """A tqdm bar for each epoch.

    Args:
        stream: a terminal.
    Raises:
        PluginError: tqdm is not installed.
    """

    def __init__(self, stream: Guarded) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise PluginError(
                "the plugin 'progress' needs the package tqdm for a bar; run: pip "
                "install tqdm, or set progress.verbose to 2"
            ) from error
        self._make = tqdm
        self._stream = stream
        self._bar: tqdm[Any] | None = None

    def start(self, title: str, done: int, total: int | None) -> None:
        """Begin an epoch, of which ``done`` batches of ``total`` are done."""
        self.close()
        self._bar = self._make(
            desc=title,
            initial=done,
            total=total,
            unit="batch",
            file=self._stream,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.0,  # the callback decides when
        )

    def show(
        self,
        done: int,
        total: int | None,
        rate: float,
        loss: float,
        seconds_left: float | None,
    ) -> None:
        """Move the bar to ``done`` batches."""
        if self._bar is None:
            return
        run = "" if seconds_left is None else f", run {as_time(seconds_left)} left"
        self._bar.set_postfix_str(f"loss {loss:.4g}{run}", refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def finish(self, line: str) -> None:
        """Replace the bar by ``line``."""
        self.close()
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Remove the bar, if there is one."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


class Lines:
    """Plain lines, for files and for those who want to keep them."""

    def __init__(self, stream: Guarded) -> None:
        self._stream = stream
        self._title = ""

    def start(self, title: str, done: int, total: int | None) -> None:
        """Begin an epoch; say so only if it is resumed inside."""
        self._title = title
        if done:
            self._write(f"{title}  resumed at batch {done}/{total or '?'}")

    def show(
        self,
        done: int,
        total: int | None,
        rate: float,
        loss: float,
        seconds_left: float | None,
    ) -> None:
        """Write where the epoch is."""
        share = f" ({100 * done / total:.0f}%)" if total else ""
        parts = [
            f"{self._title}  batch {done}/{total or '?'}{share}",
            f"{rate:.3g} batches/s",
            f"loss {loss:.4g}",
        ]
        if seconds_left is not None:
            parts.append(f"{as_time(seconds_left)} left")
        self._write("  ".join(parts))

    def finish(self, line: str) -> None:
        """Write the epoch's line."""
        self._write(line)

    def close(self) -> None:
        """Do nothing: lines leave nothing behind."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def epoch_line(
    row: Mapping[str, Any], num_epochs: int, seconds_left: float | None
) -> str:
    """Return the line that an epoch leaves: its metrics, its time, the time left."""
    parts = [f"epoch {row['epoch']}/{num_epochs}"]
    parts += [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if name not in _HIDDEN
    ]
    if "seconds" in row:
        parts.append(as_time(row["seconds"]))
    if seconds_left:
        parts.append(f"{as_time(seconds_left)} left")
    return "  ".join(parts)


def as_time(seconds: float) -> str:
    """Return ``"0:05"``, ``"12:34"`` or ``"1:02:03"``; ``"?"`` if not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
