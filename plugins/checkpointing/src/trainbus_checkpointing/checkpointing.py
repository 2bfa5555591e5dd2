"""Decide at each boundary whether to write a checkpoint, and under which name.

``Cadence`` says when, ``Ranking`` which are the best; the kernel writes the file, and
``Store`` lists it and deletes what may go.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, MinLen

from trainbus_checkpointing import cadence as when
from trainbus_checkpointing import folder as files
from trainbus_checkpointing import resumable
from trainbus_checkpointing.cadence import Boundary, Cadence
from trainbus_checkpointing.candidates import candidates
from trainbus_checkpointing.filename import (
    LAST_NAME,
    FilenameTemplate,
    as_folder,
    default_template,
)
from trainbus_checkpointing.plan import plan_of
from trainbus_checkpointing.retention import Ranking
from trainbus_checkpointing.saved import check_state, pointer
from trainbus_checkpointing.saver import Saver, needed_steps
from trainbus_checkpointing.store import Store
from training import CheckpointError, ConfigError, MetricError, checked_options
from training.callbacks import Callback
from training.plugin import (
    Claim,
    FolderLostError,
    FrozenWeights,
    Plan,
    RunLock,
    heard_if,
    is_second_signal,
    named_path,
    require_version,
    sweep_leftovers,
)

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import PlannedRun

log = logging.getLogger(__name__)

STATE_VERSION = 1
#: Below ``trainer.save_dir``, where no other folder was given.
DEFAULT_FOLDER = "checkpoints"
LOCK = "run.lock"


class ModelCheckpointCallback(Callback):
    """Write checkpoints: the best ``save_top_k`` by ``monitor``, and always the last.

    Args:
        save_dir: folder of the checkpoints, created if missing; by default
            ``checkpoints`` below ``trainer.save_dir``. A folder given here wins.
        monitor: metric that ranks checkpoints; None ranks none: only the last is kept,
            or with ``save_best_only=False`` the newest ``save_top_k``.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
        save_best_only: write a ranked checkpoint only if it enters the best
            ``save_top_k``; False: at every due time.
        save_frequency: epochs between due times.
        save_top_k: best checkpoints to keep; -1 all, 0 none.
        filename: name with fields ``{epoch}``, ``{step}``, ``{update}`` and metrics,
            each with a numeric format; default ``checkpoint-{epoch:03d}-{...:.4f}.pt``
            with the monitored metric.
        frequency_applies_to_best: also consider candidates for the best at due times
            only; by default every fresh evaluation is considered.
        save_last: at due times and at the end of training, write a checkpoint even if
            it is not among the best; the previous one of this kind then goes.
        every_n_steps: steps between further due times inside epochs; None for none.
        on_save_error: when a save failed twice, end the run (``"raise"``) or go on
            with a warning (``"warn"``); the one at the run's end always raises.
        carry_best: after a resume into another folder, only what beats the best value
            of the resumed run is a best checkpoint here.
        async_save: copy the state to host memory and write it while training goes on;
            an error ends the run at the next step, on many processes at the next
            boundary, or at its end. The last checkpoint of a run is waited for. Takes
            as much host memory as the state.
        weights: ``"trained"`` leaves out the parameters that are frozen when training
            begins; a model with the very same ones is needed to go on, or to use them.
    Raises:
        ConfigError: an option is of the wrong type or out of range.
    """

    name = "checkpointing"
    hook_api = ">=1.1,<2"
    consumes = ("monitor",)

    @checked_options
    def __init__(
        self,
        save_dir: str | os.PathLike[str] | None = None,
        monitor: Annotated[str, MinLen(1)] | None = "val_loss",
        mode: Literal["min", "max"] = "min",
        save_best_only: bool = True,
        save_frequency: Annotated[int, Ge(1)] = 1,
        save_top_k: Annotated[int, Ge(-1)] = 1,
        filename: str | None = None,
        frequency_applies_to_best: bool = False,
        save_last: bool = True,
        every_n_steps: Annotated[int, Ge(1)] | None = None,
        on_save_error: Literal["raise", "warn"] = "raise",
        carry_best: bool = False,
        async_save: bool = False,
        weights: Literal["all", "trained"] = "all",
    ) -> None:
        self.save_dir = None if save_dir is None else named_path(save_dir)
        self.monitor = monitor
        self.cadence = Cadence(
            save_best_only,
            save_frequency,
            frequency_applies_to_best,
            save_last,
            every_n_steps,
        )
        self.ranking = Ranking(monitor, mode, save_top_k)
        template = default_template(monitor) if filename is None else filename
        self.filename = FilenameTemplate(template)
        self.on_save_error = on_save_error
        self.carry_best = carry_best
        self.async_save = async_save
        option = "training.save_dir" if save_dir is None else "checkpointing.save_dir"
        self._claim = Claim("checkpointing plugin", option)
        self.weights = weights
        self._restored: dict[str, Any] = {}
        self._saver: Saver | None = None
        self._error: BaseException | None = None

    @property
    def best_path(self) -> Path | None:
        """The best checkpoint of this run, or None while there is none."""
        return self._saver.store.path("best") if self._saver else None

    @property
    def best_value(self) -> float | None:
        """The monitored value of ``best_path``."""
        best = self._saver.store.best if self._saver else None
        return best.value(self.monitor) if best else None

    @property
    def last_path(self) -> Path | None:
        """The newest checkpoint of this run, or None while there is none."""
        return self._saver.store.path("last") if self._saver else None

    def find_checkpoint(self, step: int) -> Path | None:
        """Return a complete checkpoint of this run's state at ``step``, or None."""
        return self._saver.store.path_of(step) if self._saver else None

    def plan(self, run: PlannedRun) -> Plan:
        """Return what a run would write and delete; touches no file."""
        folder, names = self._folder(run), (self.filename.template, LAST_NAME)
        # Not each must be a Callback.
        are_folders = any(
            isinstance(p, Callback) and p.saves_parts for p in run.plugins.values()
        )
        if are_folders and run.processes > 1:
            names = as_folder(names[0]), as_folder(names[1])
        files = folder / names[0], folder / names[1]
        return plan_of(run, run.name_of(self), self.cadence, self.ranking, files)

    def on_setup(self, trainer: Trainer) -> None:
        """Make the folder, wherever its path leads now; forget an earlier run."""
        self._claim.require_free()
        self._saver = None
        folder = self._folder(trainer).absolute()
        if any(store.is_at(folder) for store in _stores(trainer)):
            raise ConfigError(
                f"two checkpointing plugins write to {str(folder)!r}; give each "
                "its own save_dir"
            )
        strategy, locks = trainer.strategy, list[RunLock]()
        if strategy.saves_parts and self.weights == "trained":
            raise ConfigError(
                f"{self.name}.weights is 'trained' and distributed.checkpoint "
                "'sharded', which leaves nothing out; use checkpoint 'full', whose "
                "file is as small as what is trained, or weights 'all'"
            )
        strategy.on_main(lambda: locks.append(self._take(folder, trainer)))
        if trainer.world_size > 1:
            files.require_shared(folder, strategy)
        asks = partial(needed_steps, trainer)
        lock = locks[0] if locks else None  # the main process has it
        store = Store(folder, self.ranking, lock, strategy, asks)
        self._saver = Saver(store, self.filename, self.async_save)
        self._restored = {}

    def _take(self, folder: Path, trainer: Trainer) -> RunLock:
        with files.usable(folder):
            lock = self._claim.take(folder / LOCK, trainer)
            if not os.access(folder, os.W_OK | os.X_OK):  # where the lock lay already
                raise PermissionError(13, "not writable")
            sweep_leftovers(folder)
        return lock

    def on_train_begin(self, trainer: Trainer) -> None:
        """Refuse unknown metrics; open the folder for this run."""
        called = trainer.bus.name_of(self) or self.name  # its id, if it has one
        if (name := self.monitor) is not None:
            try:
                trainer.require_metric(name, f"{called}.monitor", self.ranking.mode)
            except MetricError as error:
                way = "; monitor=None (null) ranks none, and keeps the last one"
                raise MetricError(f"{error}{way}") from None
        for field in self.filename.metric_fields:
            trainer.require_metric(field, f"{called}.filename")
        saver = self._set_up
        if self.weights == "trained":
            saver.frozen = FrozenWeights(trainer.model)
        missed = saver.open(trainer, self._restored, _stores(trainer), self.carry_best)
        if missed is not None:
            is_ranked = saver.store.on_main(lambda: self._is_ranked(trainer, missed))
            if is_ranked is not None:
                saver.miss(trainer, missed, is_ranked)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Let the run be known for the newest, also if it dies before it saves."""
        self._set_up.begin(trainer)
        with self._reported(trainer.is_stopping):
            self._set_up.make_up(trainer)

    @heard_if(lambda self: self.async_save or self.cadence.every_n_steps)
    def on_step_end(self, trainer: Trainer) -> None:
        """Ask for a boundary where a save inside the epoch is due.

        Raises:
            CheckpointError: what was written in the meantime could not be.
        """
        if self.async_save:
            self._look_at_saves(trainer)
        if self.cadence.is_step_due(trainer.step) and not trainer.ends_epoch:
            trainer.request_checkpoint(when.REASON_STEPS)  # else its end comes next

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Ask for a boundary when an evaluation inside an epoch found a candidate."""
        is_end = "train_loss" in metrics or trainer.is_extra_evaluation  # saved next
        if is_end or self.monitor not in metrics or not trainer.is_main:
            return  # the main process asks, and has the newest list
        if self._set_up.is_candidate(trainer):
            trainer.request_checkpoint(when.REASON_BEST)

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        """Write one file if this boundary calls for it, and never two."""
        if trainer.is_stopping:  # what is in flight may be of this very boundary
            self._finish(wait=True)
        position = trainer.epoch, trainer.step
        is_interrupted = trainer.stop_owner in ("signal", "error")
        at = Boundary(reason, *position, trainer.is_stopping, is_interrupted)
        saver = self._set_up
        is_ranked = saver.store.on_main(lambda: self._is_ranked(trainer, at))
        if is_ranked is not None:
            self._finish(wait=True)
            with self._reported(at.is_stopping):
                saver.save(trainer, at, is_ranked)
        if trainer.is_stopping and trainer.is_main:  # a signal may have come meanwhile
            saver.store.finish(wait=True)

    @contextlib.contextmanager
    def _reported(self, is_last: bool = False) -> Iterator[None]:
        """Let a save that failed end the run, or only be told of, as was chosen."""
        try:
            yield
        except FolderLostError:
            raise  # no later save can do better
        except CheckpointError as error:
            if is_last or self.on_save_error == "raise":
                raise
            log.warning("checkpointing: training goes on without a save: %s", error)

    def _is_ranked(self, trainer: Trainer, at: Boundary) -> bool | None:
        """Return whether to save for the best or only as the last; None: not at all."""
        saver = self._set_up
        is_candidate = saver.is_candidate(trainer)
        is_ranked = self.cadence.wants_ranked(at, is_candidate)
        if saver.saved_at == (at.epoch, at.step):
            # Saved before its value was measured: a signal came first.
            return True if is_ranked and is_candidate else None
        return is_ranked if is_ranked or self.cadence.wants_last(at) else None

    def on_train_end(self, trainer: Trainer) -> None:
        """Wait for the checkpoint that is being written."""
        resumable.remove(trainer)  # no epoch may have begun
        with self._reported(is_last=True):
            self._set_up.make_up(trainer)
        self._finish(wait=True)

    def on_exception(self, error: BaseException) -> None:
        """Remember it: a second signal does not wait for a write."""
        self._error = error

    def on_close(self, trainer: Trainer) -> None:
        """Wait for the checkpoint that is being written, and let go of the folder."""
        error, self._error = self._error, None  # its traceback holds what the run did
        is_ours = self._claim.is_of(trainer)  # not where its run was refused
        try:
            if self._saver is not None and is_ours:
                self._saver.store.abandon_parts()
                self._saver.store.finish(wait=not is_second_signal(error))
        finally:
            if self._saver is not None and (is_ours or not trainer.is_main):
                self._saver.end(trainer, error)
            self._claim.release(trainer)

    def resume_candidates(self, trainer: Trainer) -> list[tuple[Path, str | None]]:
        """Return the files to resume from, best first, and what is wrong with each."""
        return candidates(self._folder(trainer))

    def summary(self) -> dict[str, Any]:
        """Return the best value, and where the best and the last checkpoint are."""
        paths = {"best_checkpoint": self.best_path, "last_checkpoint": self.last_path}
        return {
            "best": {} if self.best_value is None else {self.monitor: self.best_value},
            "paths": {label: str(path) for label, path in paths.items() if path},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return which files were best and last, not yet the one being written."""
        saver = self._saver
        if saver is None or not saver.store.is_open:
            return dict(self._restored)  # the folder has not been looked at yet
        store, best = saver.store, saver.carried
        if store.best is not None:
            best = {**pointer(store.best), "value": self.best_value}
        return {
            "version": STATE_VERSION,
            "monitor": self.monitor,
            "mode": self.ranking.mode,
            "best": best,
            "last": store.last and pointer(store.last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep what identifies the resumed run; the manifest on disk has the rest.

        Raises:
            CheckpointError: the state has a version that this plugin does not read, or
                holds what no run can have saved.
        """
        require_version(self.name, state, STATE_VERSION)
        check_state(self.name, state)
        self._restored = dict(state)

    @property
    def _set_up(self) -> Saver:
        assert self._saver is not None, "on_setup comes first"
        return self._saver

    def _folder(self, run: Trainer | PlannedRun) -> Path:
        return self.save_dir or Path(run.save_dir) / DEFAULT_FOLDER

    def _look_at_saves(self, trainer: Trainer) -> None:
        if trainer.world_size == 1:
            self._finish(wait=False)
        elif self._set_up.store.have_parts_ended():
            self._finish(wait=True)
        elif trainer.is_main:
            self._set_up.store.list_ended()

    def _finish(self, wait: bool) -> None:
        """List what was written meanwhile; all processes call it."""
        saver = self._set_up
        with self._reported():
            try:
                saver.store.on_main(lambda: saver.store.finish(wait))
                saver.store.finish_parts()
            except CheckpointError:
                saver.saved_at = None
                raise


def _stores(trainer: Trainer) -> list[Store]:
    plugins = trainer.plugins.values()
    keepers = [each for each in plugins if isinstance(each, ModelCheckpointCallback)]
    return [each._saver.store for each in keepers if each._saver]
