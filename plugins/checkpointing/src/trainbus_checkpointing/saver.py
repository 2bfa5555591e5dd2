"""Name one checkpoint, let the kernel write it, and hand it to the store."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus_checkpointing import folder as files
from trainbus_checkpointing import resumable
from trainbus_checkpointing.cadence import Boundary
from trainbus_checkpointing.filename import LAST_NAME, FilenameTemplate, as_folder
from trainbus_checkpointing.missed_turn import can_be_copied, missed_turn
from trainbus_checkpointing.retention import Entry
from trainbus_checkpointing.saved import resumed_by
from trainbus_checkpointing.staging import Staging
from trainbus_checkpointing.store import Store
from training.plugin import (
    FrozenWeights,
    capture,
    write_checkpoint,
)

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class Saver:
    """Saves the state of a trainer, at most once at each boundary.

    Args:
        store: where the files go.
        filename: names of the ranked ones.
        is_async: copy the state and write it while training goes on.
    """

    def __init__(
        self, store: Store, filename: FilenameTemplate, is_async: bool = False
    ) -> None:
        self.store = store
        self._filename = filename
        self._staging = Staging() if is_async else None
        #: What is left out of each file, if anything is.
        self.frozen: FrozenWeights | None = None
        #: The best of the resumed run elsewhere, which the best here must beat.
        self.carried: Mapping[str, Any] | None = None
        #: (epoch, step) of the state that was saved, or loaded, last.
        self.saved_at: tuple[int, int] | None = None
        self._has_begun = False
        self._missed: Entry | None = None  # to be written before the run trains

    def open(
        self,
        trainer: Trainer,
        restored: Mapping[str, Any],
        keepers: Collection[Store],
        carries_best: bool,
    ) -> Boundary | None:
        """Open the folder for the run that begins; all processes call it.

        Args:
            trainer: of the run.
            restored: the state of this plugin that was resumed, if any was.
            keepers: of all plugins of the run that keep its checkpoints.
            carries_best: whether the best must beat that of the resumed run elsewhere.
        Returns:
            The boundary that was resumed, where the run died before its turn here.
        """
        store, ranking = self.store, self.store.ranking
        best, resumed = restored.get("best"), resumed_by(trainer, restored, keepers)
        # One id for all keepers, from the system: no generator of the run is moved.
        run_id = max(s.run_id for s in keepers) or os.urandom(8).hex()
        watched = {k: v for k, v in restored.items() if k in ("monitor", "mode")}
        before = replace(ranking, **watched)

        def begin() -> Boundary | None:
            listed = store.begin(resumed, self._filename, run_id)
            if before != ranking:
                # Also where none is to be kept from here on.
                replace(before, keep=before.keep or 1).spare(store.entries, ranking)
            if not restored or before != ranking:
                return None  # new, or by another metric: nobody had asked it there
            return missed_turn(trainer, resumed, store, listed)

        with files.usable(store.folder):
            missed = store.on_main(begin)
        if carries_best and not store.best and before == ranking:
            self.carried = best if best and best["value"] is not None else None
        if store.last and (store.last.epoch, store.last.step) == resumed.position:
            self.saved_at = resumed.position
        return missed

    def begin(self, trainer: Trainer) -> None:
        """Note, the first time, that the run trains; all processes call it."""
        if not self._has_begun:
            self._has_begun = True
            resumable.remove(trainer)
            with files.usable(self.store.folder):
                self.store.on_main(self.store.note_run)

    def is_candidate(self, trainer: Trainer) -> bool:
        """Whether a fresh value of the monitored metric would enter the best k."""
        ranking, entries = self.store.ranking, self.store.expected
        value = fresh_metrics(trainer).get(ranking.monitor or "")
        if value is None or any(
            entry.step == trainer.step and entry.value(ranking.monitor) is not None
            for entry in entries
            if entry.is_ranked
        ):
            return False  # stale, or these weights are in already, by a value
        if self.carried and not ranking.beats(value, self.carried["value"]):
            return False
        return ranking.enters(value, entries)

    def save(self, trainer: Trainer, at: Boundary, is_ranked: bool) -> None:
        """Write, list and point to the state of now; all processes call it.

        Args:
            trainer: writes it.
            at: the boundary it is at.
            is_ranked: whether it competes for the best, or is only the last.
        Raises:
            CheckpointError: the file or the list could not be written.
        """
        draft = self._draft(trainer, at, is_ranked)
        if self._staging is None or at.is_stopping:
            self.store.add(draft, self._writer(trainer))
        elif trainer.strategy.saves_parts:
            self._begin_parts(trainer, draft, self._staging)
        else:
            captured, staging = capture(trainer), self._staging
            self.store.on_main(lambda: self._begin(draft, captured, staging))
        self.saved_at = at.epoch, at.step

    def miss(self, trainer: Trainer, at: Boundary, is_ranked: bool) -> None:
        """Note what a kill took, if that is what was resumed; all processes call it.

        Args:
            trainer: of the run, as it begins.
            at: the boundary that was resumed.
            is_ranked: as in ``save``.
        """
        store, draft = self.store, self._draft(trainer, at, is_ranked)
        if store.on_main(lambda: can_be_copied(trainer, draft, store, self.frozen)):
            self._missed = draft

    def make_up(self, trainer: Trainer) -> None:
        """Save what was missed; all processes call it before the run trains.

        By now all plugins have begun, and can say which checkpoints are needed. So they
        have left the state that they were resumed with: it is a copy of the file.

        Raises:
            CheckpointError: the file or the list could not be written.
        """
        draft, self._missed = self._missed, None
        source, on_main = trainer.resumed_from, self.store.on_main
        if draft is None or source is None:
            return
        position = draft.epoch, draft.step
        if self.saved_at != position:  # as where somebody has asked for it since
            copy = partial(files.copy, source)
            self.store.add(draft, lambda path: on_main(lambda: copy(path)))
            self.saved_at = position

    def _draft(self, trainer: Trainer, at: Boundary, is_ranked: bool) -> Entry:
        metrics = fresh_metrics(trainer)
        file = LAST_NAME.format(epoch=at.epoch, step=at.step)
        if is_ranked:
            counters = {"epoch": at.epoch, "step": at.step, "update": trainer.update}
            file = self._filename.render({**metrics, **counters}, at.is_mid_epoch)
        file = as_folder(file) if trainer.strategy.saves_parts else file
        return Entry(
            file=file,
            step=at.step,
            epoch=at.epoch,
            update=trainer.update,
            is_ranked=is_ranked,
            reason=at.reason,
            metrics={k: v if math.isfinite(v) else None for k, v in metrics.items()},
        )

    def _begin_parts(self, trainer: Trainer, draft: Entry, staging: Staging) -> None:
        begin, captured = trainer.strategy.begin_save, capture(trainer, whole=False)
        self.store.add_parts_later(draft, lambda at: begin(at, captured, staging.copy))

    def _begin(self, draft: Entry, captured: dict[str, Any], staging: Staging) -> None:
        self.store.finish()
        left = captured if self.frozen is None else self.frozen.leave_out(captured)
        state = staging.copy(left)
        self.store.add_later(draft, lambda path: write_checkpoint(path, state))

    def _writer(self, trainer: Trainer) -> Callable[[Path], object]:
        if self.frozen is None:
            return trainer.save_checkpoint
        return partial(trainer.save_checkpoint, frozen=self.frozen)

    def end(self, trainer: Trainer, error: BaseException | None) -> None:
        """Say whether the run is to be gone on from; keep only what its files are.

        Args:
            trainer: of a run that has ended.
            error: what has ended it, if any has.
        """
        if trainer.is_main and trainer.stop_owner == "signal":
            resumable.write(trainer, self.store, error)
        self.frozen = self._staging = None  # weights, and as much memory as the state
        self.store.let_go()


def fresh_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the metrics that were measured on the weights of now."""
    latest = trainer.metrics.items()
    return {name: each.value for name, each in latest if each.step == trainer.step}


def needed_steps(trainer: Trainer) -> set[int]:
    """Ask every plugin for the steps whose checkpoints must stay."""
    needed = trainer.bus.collect("needed_checkpoints", trainer=trainer)
    return {step for _, steps in needed for step in steps or ()}
