"""The list of checkpoints in a folder, on disk: the authority on what is there."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trainbus_checkpointing.retention import Entry
from training.checkpoint_io import write_json
from training.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = "trainbus-checkpoints"
FORMAT_VERSION = 1


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

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return the manifest of ``folder``; an empty one if there is none.

        Raises:
            CheckpointError: ``manifest.json`` is there and is not one of ours.
            OSError: it is there and cannot be read, which says nothing about it.
            ConfigError: it is of a later format.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            if content["version"] > FORMAT_VERSION:
                raise ConfigError(
                    f"{str(path)!r} was written by a newer trainbus-checkpointing; "
                    "upgrade it or choose another checkpointing.save_dir"
                )
            entries = [_entry(item) for item in content["checkpoints"]]
            return cls(folder, entries, int(content["run"]))
        except ConfigError:
            raise
        except FileNotFoundError:
            return cls(folder)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{str(path)!r} is no readable list of checkpoints ({error!r}); move "
                "it away, the checkpoints beside it stay as they are"
            ) from error

    @property
    def current(self) -> list[Entry]:
        """The entries of the current run, oldest first."""
        return [entry for entry in self.entries if entry.run == self.run]

    def begin_run(
        self, continued: int | None = None, position: tuple[int, int] = (0, 0)
    ) -> None:
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

    def run_of(self, file: str, step: int) -> int | None:
        """Return the run that lists ``file`` with a state of ``step``, or None."""
        for entry in self.entries:
            if entry.file == file and entry.step == step:
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
            "checkpoints": [asdict(entry) for entry in entries],
        }
        write_json(self.folder / MANIFEST, content)
        self.entries = entries


def is_complete(folder: Path, entry: Entry) -> bool:
    """Whether the file is there in full length; its content is verified on loading."""
    try:
        return (folder / entry.file).stat().st_size == entry.num_bytes
    except OSError:
        return False


def _entry(item: Mapping[str, Any]) -> Entry:
    """Return an entry from JSON; ValueError if its file is not in the folder itself."""
    known = {field.name for field in fields(Entry)}
    entry = Entry(**{name: value for name, value in item.items() if name in known})
    name = entry.file
    if name != os.path.basename(name) or name in ("", ".", "..") or "\0" in name:
        raise ValueError(f"file {name!r} is not below the folder")
    counts = entry.step, entry.epoch, entry.update, entry.run, entry.num_bytes
    if not all(isinstance(count, int) for count in counts):
        raise TypeError(f"counters of {name!r} are no whole numbers")
    if not all(isinstance(v, float | int | None) for v in entry.metrics.values()):
        raise TypeError(f"metrics of {name!r} are no numbers")
    return entry
