"""What is written while training goes on: a file, or this process's parts of one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_checkpointing.retention import Entry
from training import CheckpointError
from training.plugin import Strategy

if TYPE_CHECKING:
    from training.plugin import BegunSave

log = logging.getLogger(__name__)


class Background:
    """At most one piece of work in a thread; whoever asks for its end has its error."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        # Only while a thread runs: an Event cannot be copied, and the plugin may be.
        self._ended: threading.Event | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was started and its end not yet asked for."""
        return self._thread is not None

    @property
    def is_working(self) -> bool:
        """Whether work was started and has not ended."""
        return self._ended is not None and not self._ended.is_set()

    def start(self, work: Callable[[], object]) -> None:
        """Begin ``work``; ``finish`` must have ended the one before."""
        assert self._thread is None, "one at a time"

        self._ended = ended = threading.Event()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error
            finally:
                ended.set()

        # No daemon: at exit Python would stop it inside of torch, and that aborts.
        self._thread = threading.Thread(target=run, name="checkpointing", daemon=False)
        self._thread.start()

    def finish(self, wait: bool) -> bool:
        """Return whether the work has ended; raise the error that ended it.

        Args:
            wait: until it has.
        """
        if self._thread is None or self._ended is None:
            return False
        if not wait and not self._ended.is_set():
            return False
        # First: a ``join`` that a signal interrupts takes the thread for ended.
        self._ended.wait()
        self._thread.join()
        self._thread = self._ended = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True


class PartsInFlight:
    """A checkpoint of which each process writes its parts in a thread of its own.

    All processes have one.

    Args:
        draft: what it is, named.
        begun: together; this process has still to write.
        strategy: by which processes the run is computed.
    """

    def __init__(self, draft: Entry, begun: BegunSave, strategy: Strategy) -> None:
        self.draft = draft
        self._begun, self._strategy = begun, strategy
        self._background = Background()
        self._written: list[Any] = []
        self._background.start(self._write)

    def has_ended(self) -> bool:
        """Return whether all have written, or failed to; called by all."""
        return not any(self._strategy.sum([float(self._background.is_working)]))

    def finish(self) -> Path:
        """Wait for all, and make it visible; called by all.

        Raises:
            CheckpointError: it could not be written, by any of them.
        """
        try:
            self._strategy.on_each(lambda: self._background.finish(wait=True))
            return self._begun.complete(self._written[-1])
        except BaseException:
            self._begun.abandon()
            raise

    def abandon(self) -> None:
        """Give it up; waits for the thread of this process alone."""
        try:
            self._background.finish(wait=True)
        except CheckpointError as error:
            log.warning("checkpointing: %s", error)
        self._begun.abandon()

    def _write(self) -> None:
        try:
            self._written.append(self._begun.write())
        except CheckpointError as error:
            log.warning("checkpointing: trying again: %s", error)
            self._written.append(self._begun.write())
