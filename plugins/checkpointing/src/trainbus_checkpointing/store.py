"""Checkpoints in their folder: add one, list it, and only then delete what may go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from trainbus_checkpointing import folder as files
from trainbus_checkpointing.continued import continued
from trainbus_checkpointing.filename import FilenameTemplate
from trainbus_checkpointing.in_flight import Background, PartsInFlight
from trainbus_checkpointing.manifest import (
    Lists,
    Manifest,
    is_complete,
    read_or_move_aside,
)
from trainbus_checkpointing.relisting import left_unlisted
from trainbus_checkpointing.retention import Entry, Ranking
from trainbus_checkpointing.saved import Resumed
from training import CheckpointError
from training.plugin import BegunSave, RunLock, Strategy, count, write_json

log = logging.getLogger(__name__)

LAST = "last.json"
T = TypeVar("T")


class Store:
    """The checkpoints of one run in one folder.

    The main process of a run does what changes in it, and finds what is wrong; the
    others have its lists. What they all call is marked so, and may wait for them.

    Args:
        folder: an existing folder.
        ranking: how checkpoints compare and how many of the best stay.
        lock: of that folder; asked before whatever changes in it. Other processes than
            the main one have none.
        strategy: by which processes the run is computed.
        needed: asks for the steps whose checkpoints somebody still needs.
    Raises:
        FolderLostError: by all that write or delete, if another run has the folder.
    """

    def __init__(
        self,
        folder: Path,
        ranking: Ranking,
        lock: RunLock | None,
        strategy: Strategy,
        needed: Callable[[], Collection[int]],
    ) -> None:
        self.folder = folder
        self.ranking = ranking
        self._held = lock
        self._strategy, self._needed = strategy, needed
        self._lists = Lists(Manifest(folder))
        self._sources: set[str] = set()  # names here of what was resumed
        #: Of the run; empty before it has begun, and on other processes than the main.
        self.run_id = ""
        self._owners: dict[tuple[int, int], str] = {}  # of what was resumed: its run_id
        self._background = Background()
        self._in_flight: Entry | None = None  # what that writes
        self._late: CheckpointError | None = None  # of ``list_ended``
        self._parts: PartsInFlight | None = None

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process ``work`` in the folder; called by all processes.

        Its result is everybody's, as are its lists, and what it raises.
        """
        result, self._lists = self._strategy.on_main(lambda: (work(), self._lists))
        return result

    @property
    def _lock(self) -> RunLock:
        assert self._held is not None, "the main process has it"
        return self._held

    @property
    def _manifest(self) -> Manifest:
        return self._lists.manifest

    @property
    def is_open(self) -> bool:
        """Whether a run was opened in the folder."""
        return self._manifest.run > 0

    @property
    def entries(self) -> list[Entry]:
        """The current run's checkpoints, oldest first."""
        return self._manifest.current

    @property
    def expected(self) -> list[Entry]:
        """``entries``, and the one that is being written; for the main process."""
        drafts = [self._in_flight, self._parts.draft if self._parts else None]
        return [*self.entries, *filter(None, drafts)]

    @property
    def best(self) -> Entry | None:
        """The best one, or None."""
        return self.ranking.best(self.entries)

    @property
    def last(self) -> Entry | None:
        """The one that was written last, or None."""
        return next(reversed(self.entries), None)

    def is_at(self, folder: Path) -> bool:
        """Whether these are the checkpoints in ``folder``."""
        # Not Path.resolve, which raises where links go round in a circle.
        return os.path.realpath(self.folder) == os.path.realpath(folder)

    def begin(
        self,
        resumed: Resumed,
        filename: FilenameTemplate,
        run_id: str,
    ) -> list[Entry]:
        """Read what the folder holds and open a run in it.

        Return what it has of the run that goes on, also of after the resumed state.

        Args:
            resumed: the run that goes on.
            filename: of the ranked ones.
            run_id: of the new run.
        """
        self._lock.confirm()
        manifest = read_or_move_aside(self.folder)
        manifest.drop_incomplete()
        here = [path for path in resumed.paths if self.is_at(path.parent)]
        found = continued(manifest, resumed, here)
        manifest.begin_run(found.run, found.until)
        self._lists = Lists(manifest, found.elsewhere)
        self._sources = {path.name for path in here}
        self.run_id, saved_by = run_id, found.saved_by
        self._owners = {resumed.position: saved_by}
        listed, new = manifest.entries, manifest.run
        if saved_by and found.source and resumed.is_kept:
            alike = left_unlisted(self.folder, listed, found.source, filename)
            listed += [replace(e, run=new, written_by=saved_by) for e in alike]
        self._report()
        return [
            entry
            for entry in listed
            if entry.run in (found.run, new)
            or (saved_by and entry.written_by == saved_by)
        ]

    def note_run(self) -> None:
        """List the run where others were before it: it may die before it saves."""
        if self._manifest.run > 1:
            self._list(self._manifest.entries)

    def add(self, draft: Entry, write: Callable[[Path], object]) -> None:
        """Write a checkpoint, list it, point ``last.json`` to it, delete what may go.

        All processes call it.

        Args:
            draft: what it is; its file is the wanted name, which gets a ``-v2`` if it
                is taken; size, digest and run are filled in here.
            write: writes the complete file to a path, durably; on all processes.
        Raises:
            CheckpointError: the file or the list could not be written.
        """
        self.on_main(self.finish)
        named = self.on_main(lambda: self._named(draft))
        self._write(named, write)
        self.on_main(lambda: self._commit(named))

    def add_later(self, draft: Entry, write: Callable[[Path], object]) -> None:
        """Begin to write a checkpoint in a thread; ``finish`` lists it.

        The one before must be finished: one is in flight.
        """
        self._in_flight = named = self._named(draft)
        self._background.start(lambda: self._write(named, write))

    def add_parts_later(self, draft: Entry, begin: Callable[[Path], BegunSave]) -> None:
        """Begin a checkpoint that each process writes its parts of, in a thread.

        All processes call it; the one before must be finished, by ``finish_parts``.

        Args:
            draft: as ``add`` takes it.
            begin: begins the folder at a path, together.
        Raises:
            CheckpointError: it could not be begun.
        """
        named = self.on_main(lambda: self._named(draft))
        begun = begin(self.folder / named.file)
        self._parts = PartsInFlight(named, begun, self._strategy)

    def have_parts_ended(self) -> bool:
        """Whether parts are in flight that all have written; all processes call it."""
        return self._parts is not None and self._parts.has_ended()

    def finish_parts(self) -> None:
        """Wait for the parts that are in flight, and list their checkpoint.

        All processes call it.

        Raises:
            CheckpointError: it could not be written, or not be listed.
        """
        parts, self._parts = self._parts, None
        if parts is None:
            return
        try:
            parts.finish()
        except CheckpointError as error:
            last_good = self._last_good()
            raise CheckpointError(f"{error}; {last_good}") from error
        self.on_main(lambda: self._commit(parts.draft))

    def abandon_parts(self) -> None:
        """Give up what is in flight of parts: the others may be gone."""
        parts, self._parts = self._parts, None
        if parts is not None:
            log.warning(
                "checkpointing: a checkpoint was being written and is given up; %s",
                self._last_good(),
            )
            parts.abandon()

    def finish(self, wait: bool = True) -> None:
        """List the checkpoint that was in flight, if it is complete.

        Args:
            wait: until it is complete.
        Raises:
            CheckpointError: it could not be written, or not be listed.
        """
        late, self._late = self._late, None
        if late is not None:
            raise late
        draft = self._in_flight
        try:
            is_complete = self._background.finish(wait)
        except BaseException:
            if not self._background.is_busy:  # else only the wait was ended
                self._in_flight = None
            raise
        if is_complete and draft is not None:
            self._in_flight = None
            self._commit(draft)

    def list_ended(self) -> None:
        """List the checkpoint that was in flight, if it has ended.

        What fails is raised by the next ``finish``, for all processes: no step waits.
        """
        try:
            self.finish(wait=False)
        except CheckpointError as error:
            self._late = error

    def let_go(self) -> None:
        """Keep what there is, and nothing of the run, which is over.

        Who keeps the plugin then keeps no trainer: its run wrote by the lock, the
        strategy is its own, and its plugins were asked.
        """
        self._held, self._strategy, self._needed = None, Strategy(), set

    def _named(self, draft: Entry) -> Entry:
        self._confirm()
        return replace(draft, file=files.free_name(self.folder, draft.file))

    def _write(self, draft: Entry, write: Callable[[Path], object]) -> None:
        """Write once more after a failure; nothing is deleted to make room."""
        path = self.folder / draft.file
        try:
            try:
                write(path)
            except CheckpointError as error:
                log.warning("checkpointing: trying again: %s", error)
                write(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self._last_good()}") from error

    def _last_good(self) -> str:
        last = self.path("last")
        return f"the last good checkpoint is {last}" if last else "there is none yet"

    def _commit(self, draft: Entry) -> None:
        path = self.folder / draft.file
        with self._listing():
            entry = replace(
                draft,
                num_bytes=files.size_of(path),
                digest=files.digest_of(path),
                run=self._manifest.run,
                written_by=self._owners.get((draft.epoch, draft.step)) or self.run_id,
            )
            self._list([*self._manifest.entries, entry])
            pointer = {"file": entry.file, "step": entry.step, "epoch": entry.epoch}
            self._lock.confirm(self._manifest.is_as_left)
            write_json(self.folder / LAST, {**pointer, "digest": entry.digest})
        needed = self._needed()  # a plugin may raise here: the file is listed by now
        with self._listing():
            self._evict(needed)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            files.require_there(self.folder, error)
            raise CheckpointError(
                f"the list of checkpoints in {str(self.folder)!r} could not be written "
                f"({error}); free space or choose another checkpointing.save_dir; "
                f"{self._last_good()}"
            ) from error

    def _confirm(self) -> None:
        try:
            self._lock.confirm(self._manifest.is_as_left)
        except OSError as error:
            files.require_there(self.folder, error)
            raise CheckpointError(
                f"{str(self._lock.path)!r} cannot be read ({error}), so nothing was "
                f"saved; {self._last_good()}"
            ) from error

    def path(self, which: Literal["best", "last"]) -> Path | None:
        """Return where that checkpoint lies, or None while there is none."""
        entry = self.best if which == "best" else self.last
        return None if entry is None else self.folder / entry.file

    def path_of(self, step: int) -> Path | None:
        """Return the newest complete file of this run with a state of ``step``."""
        for manifest in filter(None, (self._manifest, self._lists.elsewhere)):
            for entry in reversed(manifest.current):
                if entry.step == step and is_complete(manifest.folder, entry):
                    return manifest.folder / entry.file
        return None

    def _evict(self, needed: Collection[int]) -> None:
        current = self.entries
        protected = {entry.file for entry in current if entry.step in needed}
        protected |= {entry.file for entry in (self.best, self.last) if entry}
        evicted = self.ranking.evicted(current, protected | self._sources)
        for entry in evicted:
            self._lock.confirm(self._manifest.is_as_left)
            files.remove(self.folder, entry.file)
        if evicted:
            gone = {entry.file for entry in evicted}
            self._list([e for e in self._manifest.entries if e.file not in gone])

    def _list(self, entries: list[Entry]) -> None:
        """Replace the manifest; it names best and last for those who only read it."""
        self._lock.confirm(self._manifest.is_as_left)
        current = [entry for entry in entries if entry.run == self._manifest.run]
        best = self.ranking.best(current)
        self._manifest.write(
            entries,
            monitor=self.ranking.monitor,
            mode=self.ranking.mode,
            best=best.file if best else None,
            last=current[-1].file if current else None,
        )

    def _report(self) -> None:
        if others := len(self._manifest.entries) - len(self.entries):
            log.warning(
                "checkpointing: %s holds %s of other runs, neither ranked nor deleted",
                *(self.folder, count(others, "checkpoint")),
            )
        listed = {entry.file for entry in self._manifest.entries}
        if strangers := files.unlisted(self.folder, listed):
            log.warning(
                "checkpointing: %s also holds files that are not listed and stay as "
                "they are: %s",
                *(self.folder, ", ".join(strangers)),
            )
