"""A checkpoint of which each process writes its parts in a thread of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_checkpointing.background import Background
from trainbus_checkpointing.retention import Entry
from training import CheckpointError
from training.plugin import Strategy

if TYPE_CHECKING:
    from training.plugin import BegunSave

log = logging.getLogger(__name__)


class PartsInFlight:
    """One that is written while training goes on; all processes have one.

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
