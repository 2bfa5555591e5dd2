"""The record of one run, read from its folder: damaged, unfinished or old as it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from training.errors import ConfigError
from training.files.holder import MOST_BYTES, Holder
from training.files.named_paths import named_path, open_file
from training.files.record_names import CONFIG, HISTORY, LOCK, STARTS, SUMMARY
from training.messages.tables import count

__all__ = ["RunFolder", "find_runs", "is_number", "read_run"]

#: One of them makes a folder that of a run; others have a config.yaml, too.
SIGNS = (SUMMARY, HISTORY, STARTS)
#: How earlier releases wrote that a signal ended a run.
SIGNALLED = ("failed: KeyboardInterrupt", "failed: Terminated")
#: Levels of folders that are searched for runs.
DEPTH = 5
#: Bytes of a file of a record; that of a run of a million epochs has less.
MOST = 1 << 30


@dataclass(slots=True)
class RunFolder:
    """What is known of a run.

    Attributes:
        path: its folder.
        config: the resolved configuration; empty where there is none.
        history: a row for each epoch.
        summary: what it said at its end; empty where it did not come to that.
        starts: each time that it was started or resumed; none of an early release.
        is_running: whether a process is known to be at work on it.
        complaints: what could not be read, a sentence each.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    is_running: bool = False
    complaints: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``running``, ``finished``, ``interrupted``, ``failed`` or ``unfinished``."""
        if self.is_running:
            return "running"
        status = self._told("status")
        # A summary may be that of an earlier start than the last one.
        is_cut_off = bool(self.starts) and not self.starts[-1].get("ended")
        if is_cut_off or not isinstance(status, str):
            return "unfinished"
        if status in ("finished", "interrupted"):
            return status
        return "interrupted" if status.startswith(SIGNALLED) else "failed"

    @property
    def stopped_by(self) -> str:
        """Who ended it: a plugin, or ``trainer`` when the plan was done; or ``""``."""
        if self.state in ("running", "unfinished"):
            return ""
        if self.state == "failed":
            return "an error"
        return _text(self._told("stop_owner"))

    @property
    def why(self) -> str:
        """The words of who ended it, or what failed; ``""`` where nothing was said."""
        if self.state == "failed":
            return _text(self._told("status")).removeprefix("failed: ")
        return _text(self._told("stop_reason")) if self.stopped_by else ""

    @property
    def epochs(self) -> int:
        """How many are complete; those with a row where no end has said it."""
        told = _count(self._told("epochs"))
        if told is not None and self.state not in ("running", "unfinished"):
            return told  # the last row may be of an epoch that was cut short
        rows = [each for row in self.history if (each := _count(row.get("epoch")))]
        return max([told or 0, *rows])

    @property
    def seconds(self) -> float | None:
        """How long all its starts took; None where that is not known.

        Of a start that did not come to say so, it is how long its epochs took.
        """
        told = list(self._seconds_of_starts()) or [self.summary.get("seconds")]
        if not any(map(is_number, told)):
            told = [row.get("seconds") for row in self.history]
        known = [float(value) for value in told if is_number(value)]
        whole = sum(known)
        return whole if known and is_number(whole) else None

    def _seconds_of_starts(self) -> Iterator[Any]:
        rows = self.history
        for start in reversed(self.starts):
            begun, ended = _count(start.get("steps")) or 0, start.get("ended")
            own = [row for row in rows if (_count(row.get("step")) or 0) > begun]
            rows = [row for row in rows if (_count(row.get("step")) or 0) <= begun]
            if isinstance(ended, Mapping):
                yield ended.get("seconds")
            else:
                yield from (row.get("seconds") for row in own)

    @property
    def best(self) -> list[Best]:
        """The best value of each metric that was watched."""
        found = []
        told = self.summary.get("best")
        if not self.summary:
            return list(self._best_so_far())
        for each in told if isinstance(told, list) else ():
            value = each.get("value") if isinstance(each, Mapping) else None
            if is_number(value):
                row = each.get("row")
                epoch = row.get("epoch") if isinstance(row, Mapping) else None
                name = _text(each.get("monitor"))
                found.append(
                    Best(name, value, _count(epoch), self._is_high(name, value))
                )
        return found

    def _told(self, name: str) -> Any:
        """Return what the summary says, or else how the last start ended."""
        if self.summary or not self.starts:
            return self.summary.get(name)
        ended = self.starts[-1].get("ended")
        return ended.get(name) if isinstance(ended, Mapping) else None

    def _watched(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each metric that a plugin of the configuration watches, its options."""
        plugins = self.config.get("plugins")
        for entry in plugins if isinstance(plugins, list) else ():
            for options in entry.values() if isinstance(entry, Mapping) else ():
                name = options.get("monitor") if isinstance(options, Mapping) else None
                if isinstance(name, str):
                    yield name, options

    def _best_so_far(self) -> Iterator[Best]:
        """Yield the best of each metric that is watched."""
        for name, options in self._watched():
            rows = [row for row in self.history if is_number(row.get(name))]
            if not rows:
                continue
            mode = options.get("mode", "min")  # as plugins that watch have it
            best = (max if mode == "max" else min)(rows, key=lambda row: row[name])
            epoch = _count(best.get("epoch"))
            yield Best(name, best[name], epoch, mode == "max")

    @property
    def final(self) -> dict[str, float]:
        """The numbers of the last epoch."""
        row = self.history[-1] if self.history else {}
        return {str(name): v for name, v in row.items() if is_number(v)}

    def _is_high(self, name: str, best: float) -> bool:
        """Whether more is better: as who watches it was told, else as its history has.

        Neither says so where values do not differ: less is better, as for plugins that
        watch.
        """
        for watched, options in self._watched():
            if watched == name and "mode" in options:
                return bool(options["mode"] == "max")
        values = [v for row in self.history if is_number(v := row.get(name))]
        return min(values, default=best) < best >= max(values, default=best)


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a metric.

    Attributes:
        metric: its name.
        value: the number.
        epoch: in which it was measured, or None.
        is_high: whether more is better.
    """

    metric: str
    value: float
    epoch: int | None
    is_high: bool


def read_run(path: str | os.PathLike[str]) -> RunFolder:
    """Return what the record of a run holds; what cannot be read is complained of.

    Raises:
        ConfigError: there is no such folder, or it holds no record of a run.
    """
    folder = named_path(path)
    if not folder.is_dir():
        raise ConfigError(f"{str(path)!r} is no folder; name the save_dir of a run")
    if not _is_run(folder):
        raise ConfigError(
            f"{str(path)!r} holds no record of a run ({', '.join(SIGNS)}); name its "
            "save_dir, or `trainbus runs` lists those below a folder"
        )
    # Before and after: a run that ends, or begins, meanwhile was not cut off.
    run = RunFolder(folder, is_running=_is_locked(folder / LOCK))
    run.config = _read(run, CONFIG, dict)
    run.history = _rows(run, HISTORY)
    run.summary = _read(run, SUMMARY, dict)
    run.starts = _rows(run, STARTS)
    run.is_running = run.is_running or _is_locked(folder / LOCK)
    return run


def find_runs(folder: str | os.PathLike[str]) -> Iterator[RunFolder]:
    """Yield the runs in and below a folder, by path; links are not followed.

    Raises:
        ConfigError: there is no such folder.
    """
    root = named_path(folder)
    if not root.is_dir():
        raise ConfigError(f"{str(folder)!r} is no folder; name one that holds runs")
    for place, folders, _ in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(f for f in folders if depth < DEPTH and f[0] != ".")
        if _is_run(Path(place)):
            yield read_run(place)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SIGNS)


def _rows(run: RunFolder, name: str) -> list[dict[str, Any]]:
    """Return the mappings in a list; what else is in it is complained of."""
    rows = _read(run, name, list)
    good = [row for row in rows if isinstance(row, dict)]
    if len(good) < len(rows):
        run.complaints.append(
            f"{name}: {count(len(rows) - len(good), 'entry')} not read as rows"
        )
    return good


def _read(run: RunFolder, name: str, kind: type) -> Any:
    """Return what a file holds; empty where it is missing or damaged."""
    from training.documents.yaml_file import parse_yaml_value

    path = run.path / name
    if not os.path.lexists(path):
        if name == CONFIG:
            run.complaints.append(f"{name} is missing")
        return kind()
    try:
        with open_file(path) as file:
            text = file.read(MOST).decode()
        is_yaml = name == CONFIG
        found = parse_yaml_value(text, CONFIG) if is_yaml else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())
        run.complaints.append(f"{name} cannot be read: {told:.200}")
        return kind()
    if not isinstance(found, kind):
        run.complaints.append(
            f"{name} holds a {type(found).__name__}, no {kind.__name__}"
        )
        return kind()
    return found


def _is_locked(lock: Path) -> bool:
    """Whether whoever the lock names is not known to have ended."""
    try:
        with open_file(lock) as file:
            holder = Holder.parse(file.read(MOST_BYTES))
    except (OSError, ConfigError):
        return False
    return holder is not None and not holder.is_gone


def is_number(value: Any) -> TypeGuard[float]:
    """Whether what a record holds is a finite number, as a curve or a best value is."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return is_real and math.isfinite(value)
    except OverflowError:  # a whole number beyond all that can be drawn or averaged
        return False


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
