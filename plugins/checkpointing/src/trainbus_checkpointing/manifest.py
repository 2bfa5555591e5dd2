"""The list of checkpoints in a folder, on disk: the authority on what is there."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainbus_checkpointing.folder import free_name, is_bare_name, size_of
from trainbus_checkpointing.retention import Entry
from training import CheckpointError, ConfigError
from training.plugin import MetricValue, is_count, write_json

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = "trainbus-checkpoints"
FORMAT_VERSION = 1
#: The largest number that a counter may have; JSON has no limit.
MOST = 2**63 - 1
#: A list of some 100,000 checkpoints; what is larger is no list.
MOST_BYTES = 1 << 26

#: What each entry has, and of which kind.
OF_AN_ENTRY = {
    **dict.fromkeys(("file", "reason", "digest"), str),
    **dict.fromkeys(("step", "epoch", "update", "num_bytes", "run"), int),
    "is_ranked": bool,
    "metrics": dict,
}


class Manifest:
    """The entries of one folder, oldest first, and which run they belong to.

    Args:
        folder: where the files lie; need not exist.
        entries: what is listed.
        num_runs: runs that have used the folder so far.
    """

    def __init__(
        self, folder: Path, entries: list[Entry] | None = None, num_runs: int = 0
    ) -> None:
        self.folder = folder
        self.entries = entries or []
        self.run = num_runs
        self._on_disk: object = None  # as it was last read or written

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return the manifest of ``folder``; an empty one if there is none.

        Raises:
            CheckpointError: ``manifest.json`` is there and is not one of ours, or was
                damaged in whatever way.
            OSError: it is there and cannot be read, which says nothing about it.
            ConfigError: it is of a later format.
        """
        path = folder / MANIFEST
        try:
            found = json.loads(_read(path), parse_constant=_refused)
            content = _mapping(found, {"format": str, "version": int})
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format'][:40]!r}")
            if content["version"] > FORMAT_VERSION:
                raise ConfigError(
                    f"{str(path)!r} was written by a newer trainbus-checkpointing; "
                    "upgrade it or choose another checkpointing.save_dir"
                )
            _mapping(content, {"run": int, "checkpoints": list})
            manifest = cls(folder, _entries(content["checkpoints"]), content["run"])
            manifest._on_disk = content
            return manifest
        except ConfigError:
            raise
        except FileNotFoundError:
            return cls(folder)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{str(path)!r} is no readable list of checkpoints ({error}); the "
                "checkpoints beside it stay as they are"
            ) from error

    @property
    def current(self) -> list[Entry]:
        """The entries of the current run, oldest first."""
        return [entry for entry in self.entries if entry.run == self.run]

    def begin_run(self, continued: int | None, position: tuple[int, int]) -> None:
        """Open a new run; entries of other runs are neither ranked nor deleted.

        Args:
            continued: number of the run that goes on, or None. Its entries up to
                ``position`` become the new run's; later ones are of a branch left.
            position: (epoch, step) of the state that was resumed.
        """
        previous = max([self.run, *(entry.run for entry in self.entries)])
        self.run = previous + 1
        for entry in self.entries:
            if entry.run == continued and (entry.epoch, entry.step) <= position:
                entry.run = self.run

    def latest_of(self, run_id: str, position: tuple[int, int]) -> Entry | None:
        """Return the newest that the run of that id had written by ``position``."""
        own = [
            entry
            for entry in self.entries
            if run_id
            and entry.written_by == run_id
            and (entry.epoch, entry.step) <= position
        ]
        return max(own, key=lambda entry: (entry.epoch, entry.step), default=None)

    def listed(self, file: str, step: int) -> Entry | None:
        """Return the entry of ``file`` with a state of ``step``, or None."""
        for entry in self.entries:
            if entry.file == file and entry.step == step:
                return entry
        return None

    def run_resumed(
        self,
        known: Iterable[tuple[str, int]],
        position: tuple[int, int],
        metrics: Mapping[str, MetricValue],
    ) -> int | None:
        """Return the run of a state that was resumed, or None.

        Args:
            known: (file, step) pairs that it had listed.
            position: (epoch, step) of the state.
            metrics: the latest in the state.
        """
        for file, step in known:
            named = self.listed(file, step)
            if named is not None:
                return named.run
        # All may have gone for one that was listed after the state was saved: another
        # plugin had its turn before at that boundary, or this one writes in a thread.
        for entry in reversed(self.entries):
            same = {
                name: latest.value
                for name, latest in metrics.items()
                if latest.step == entry.step and math.isfinite(latest.value)
            }
            is_before = (entry.epoch, entry.step) <= position
            if is_before and same and same.items() <= entry.metrics.items():
                return entry.run
        return None

    def drop_incomplete(self) -> None:
        """Forget entries whose file is missing or has another size; say which."""
        lost = [entry for entry in self.entries if not is_complete(self.folder, entry)]
        for entry in lost:
            log.warning(
                "checkpointing: %s is missing or incomplete and no longer listed",
                self.folder / entry.file,
            )
            self.entries.remove(entry)

    def write(self, entries: list[Entry], **summary: Any) -> None:
        """Replace the list by ``entries``, on disk first.

        Args:
            entries: the new list.
            summary: further JSON values for a reader, such as which file is the best.
        Raises:
            OSError: the file could not be replaced; the old list holds.
        """
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "run": self.run,
            **summary,
            "checkpoints": [dict(vars(entry)) for entry in entries],
        }
        write_json(self.folder / MANIFEST, content)
        self.entries, self._on_disk = entries, content

    def is_as_left(self) -> bool:
        """Whether the list on disk is gone, or the one last read or written here.

        Raises:
            OSError: it cannot be read, which says nothing about it.
        """
        try:
            return bool(json.loads(_read(self.folder / MANIFEST)) == self._on_disk)
        except FileNotFoundError:
            return True
        except (ValueError, RecursionError):
            return False


@dataclass
class Lists:
    """What there is; the main process keeps it, and tells it to the others.

    Attributes:
        manifest: of the folder.
        elsewhere: of the folder of a resume source, if that is another; read only.
    """

    manifest: Manifest
    elsewhere: Manifest | None = None


def read_or_move_aside(folder: Path) -> Manifest:
    """Return the manifest of ``folder``; a damaged one is renamed and kept."""
    try:
        return Manifest.read(folder)
    except CheckpointError as error:
        aside = folder / free_name(folder, "manifest.damaged.json")
        log.warning("checkpointing: %s; it is now %s", error, aside.name)
        os.replace(folder / MANIFEST, aside)
        return Manifest(folder)


def is_complete(folder: Path, entry: Entry) -> bool:
    """Whether it is there in full length; its content is verified on loading."""
    try:
        return size_of(folder / entry.file) == entry.num_bytes
    except OSError:
        return False


def _mapping(found: object, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return a mapping from JSON whose values by these names are of these kinds.

    Raises:
        ValueError: it is none, or a value is of another kind, or no count of anything.
    """
    if not isinstance(found, dict):
        raise ValueError(f"a mapping is missing where {_kind(found)} stands")
    for name, kind in kinds.items():
        value = found.get(name)
        if type(value) is not kind:  # true is no number here
            raise ValueError(f"{name} is {_kind(value)}")
        if kind is int and not is_count(value, MOST):
            raise ValueError(f"{name} is out of range")
    return found


def _entries(listed: list[Any]) -> list[Entry]:
    entries = [_entry(_mapping(each, OF_AN_ENTRY)) for each in listed]
    names = [entry.file for entry in entries]
    if len(set(names)) < len(names):  # to delete one would delete the other
        raise ValueError("a file is listed twice")
    return entries


def _entry(item: dict[str, Any]) -> Entry:
    """Return an entry, whose file is a checkpoint in the folder itself."""
    name = item["file"]
    if not is_bare_name(name):
        raise ValueError(f"{name[:40]!r} is no name of a checkpoint in this folder")
    # What earlier releases did not know is not there.
    later = _mapping({"written_by": "", **item}, {"written_by": str})
    return Entry(
        **{name: item[name] for name in OF_AN_ENTRY if name != "metrics"},
        written_by=later["written_by"],
        is_spared=item.get("is_spared") is True,
        metrics={name: _finite(value) for name, value in item["metrics"].items()},
    )


def _finite(value: object) -> float | None:
    if value is None or (type(value) is int and abs(value) <= MOST):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise ValueError(f"a metric is {_kind(value)} or out of range")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _read(path: Path) -> bytes:
    """Return the content of a file; what has no end is not begun with."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"it has {found.st_size:,} bytes")
    return path.read_bytes()
