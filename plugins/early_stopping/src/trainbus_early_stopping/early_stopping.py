"""Stop a run whose watched metric no longer improves; bring back the best weights.

``Progress`` counts and ``StopRule`` decides; ``EarlyStoppingCallback`` listens, asks
the kernel to stop, and keeps the progress in checkpoints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Lt, MinLen

from trainbus_early_stopping.best_weights import BestWeights
from trainbus_early_stopping.progress import Cause, Progress
from trainbus_early_stopping.rule import StopRule
from trainbus_early_stopping.saved import progress_in
from training import checked_options
from training.callbacks import Callback
from training.plugin import Plan, require_version

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import PlannedRun

log = logging.getLogger(__name__)

STATE_VERSION = 1


class EarlyStoppingCallback(Callback):
    """Stop when ``monitor`` has not improved for ``patience`` checks in a row.

    A check is an evaluation that delivered a fresh value of ``monitor``: with one
    evaluation an epoch, patience counts epochs. One that is made only because
    ``max_steps`` ends the run inside an epoch may be the best, and is not counted: a
    run that goes on from there decides as one that was never stopped.

    Args:
        monitor: name of the metric to watch.
        patience: misses in a row that are endured, in checks; the run stops at the
            miss that reaches it. 0 stops at the first miss, like 1.
        min_delta: an improvement must be larger than this, in the metric's unit;
            measured from the last value that counted as an improvement.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
        restore_best_weights: at the normal end of training, give the model, and a loss
            with weights or buffers, those of the best check; ``trainer.weights_are``
            then says so.
        on_nonfinite: a NaN or infinite value is a miss (``"ignore"``) or ends the run
            at once (``"stop"``).
        min_epochs: no stop before this many completed epochs.
        min_steps: no stop before this many steps.
        persist_best: where a resumed run finds the best weights: in the checkpoint
            written at that step (``"path"``; while there is none, the others carry a
            copy), or as a copy that every checkpoint carries along (``"weights"``: as
            large as the model and the loss).
    Raises:
        ConfigError: an option is of the wrong type or out of range.
    """

    name = "early_stopping"
    hook_api = ">=1.1,<2"
    mutates = ("parameters",)  # on_train_end, with restore_best_weights
    consumes = ("monitor",)
    after = ("checkpointing",)  # what is on disk need not be kept in memory

    @checked_options
    def __init__(
        self,
        monitor: Annotated[str, MinLen(1)] = "val_loss",
        patience: Annotated[int, Ge(0)] = 5,
        min_delta: Annotated[float, Ge(0), Lt(math.inf)] = 0.0,
        mode: Literal["min", "max"] = "min",
        restore_best_weights: bool = False,
        on_nonfinite: Literal["ignore", "stop"] = "ignore",
        min_epochs: Annotated[int, Ge(0)] = 0,
        min_steps: Annotated[int, Ge(0)] = 0,
        persist_best: Literal["path", "weights"] = "path",
    ) -> None:
        self.rule = StopRule(
            monitor, patience, min_delta, mode, on_nonfinite, min_epochs, min_steps
        )
        self.monitor = monitor
        self.restore_best_weights = restore_best_weights
        self.persist_best = persist_best
        self.progress = Progress()
        #: With the check that the end of a run inside an epoch has brought; not saved.
        self._end: Progress | None = None
        self._weights = BestWeights(self.name)
        self._has_run = False

    @property
    def best_value(self) -> float | None:
        """The best finite value seen, also when its gain was below ``min_delta``."""
        return self._seen.best_seen

    @property
    def best_step(self) -> int | None:
        """``trainer.step`` at which ``best_value`` was measured."""
        return self._seen.best_step

    @property
    def _called(self) -> str:
        """Its name in the run, once that has begun: its id, if it has one."""
        return self._weights.owner

    @property
    def _seen(self) -> Progress:
        return self._end or self.progress

    def plan(self, run: PlannedRun) -> Plan:
        """Return when it could stop the run first, and what keeps it from it."""
        name, rule = run.name_of(self), self.rule
        conflicts = run.metric_conflicts(self.monitor, f"{name}.monitor")
        conflicts += rule.conflicts(run, name)
        return Plan(
            {"stop": [f"{name} ({self.monitor}): {rule.when(run)}"]}, {}, conflicts
        )

    def needed_checkpoints(self) -> frozenset[int]:
        """Return the steps whose checkpoints must not be deleted."""
        step = self.progress.best_step
        if step is None or not self.restore_best_weights:
            return frozenset()
        return frozenset({step})

    def on_setup(self) -> None:
        """Forget an earlier run of this instance; restored state arrives later."""
        self._has_run = True
        self._reset()

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Start afresh, or decide again whether a stopped run stays stopped."""
        self._weights.owner = trainer.bus.name_of(self) or self.name
        owner = f"{self._called}.monitor"
        trainer.require_metric(self.monitor, owner, self.rule.mode)
        if not resumed:
            self._reset()
            return
        self._weights.check(trainer)
        if self.restore_best_weights and self.progress.best_step == trainer.step:
            self._weights.take(trainer)
        before, reason = self.progress.stopped_by, self.progress.reason
        if before is None:
            return
        if cause := self._cause(trainer, before == "nonfinite"):
            remedy = self.rule.remedy(cause, self.progress)
            trainer.request_stop(f"stopped before this resume: {reason}; {remedy}")
            return
        log.warning(
            "%s: going on with a run that had stopped: %s", self._called, reason
        )
        self.progress.stopped_by = self.progress.reason = None

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Check the watched metric if this evaluation measured it."""
        if self.monitor not in metrics:
            return
        value = float(metrics[self.monitor])
        self._end = None
        if trainer.is_extra_evaluation:  # a run that goes on does not have it
            self._see_end(trainer, value)
            return
        is_best = self._check(self.progress, trainer, value)
        if is_best and self.restore_best_weights:
            self._weights.take(trainer)
        is_nonfinite = not math.isfinite(value)
        if is_nonfinite:
            log.warning(
                "%s: %s is %s at step %d, which counts as no improvement",
                *(self._called, self.monitor, value, trainer.step),
            )
        cause = self._cause(trainer, is_nonfinite)
        reason = self.rule.reason(cause, self.progress) if cause else None
        # Each check decides anew.
        self.progress.stopped_by, self.progress.reason = cause, reason
        if reason is not None:
            trainer.request_stop(reason)

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Let go of the copy once a complete checkpoint holds the same weights."""
        if self.persist_best == "path":
            self._weights.release_if_saved(trainer, self.progress)

    def on_train_end(self, trainer: Trainer) -> None:
        """Put back the best weights, whatever ended the run."""
        latest = trainer.metrics.get(self.monitor)
        if latest is not None and latest.step == trainer.step:
            # Of a run that was over when it was loaded nothing was heard in this one.
            self._see_end(trainer, latest.value)
        if self._seen.checks == 0 and trainer.step > 0:
            names = ", ".join(sorted(trainer.metrics)) or "nothing"
            log.warning(
                "%s: %r was never measured and could not stop the run; it reported %s",
                *(self._called, self.monitor, names),
            )
        if self.restore_best_weights:
            self._weights.restore(trainer, self._seen)

    def on_close(self) -> None:
        """Let go of the trainer: a plugin can be copied and sent elsewhere."""
        self._weights.leave()

    def summary(self) -> dict[str, Any]:
        """Return the best value seen."""
        best = self.best_value
        return {} if best is None else {"best": {self.monitor: best}}

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, and what it is the progress of; no settings."""
        if not self._has_run:
            return {}  # what a checkpoint brought is still with the trainer
        state: dict[str, Any] = {
            "version": STATE_VERSION,
            "monitor": self.monitor,
            "mode": self.rule.mode,
            "progress": asdict(self.progress),
        }
        if self.persist_best == "weights" or self._weights.is_needed(self.progress):
            state["weights"] = self._weights.copy
            state["loss"] = self._weights.loss
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved progress, unless it is that of another metric or mode.

        Raises:
            CheckpointError: the state has a version that this plugin does not read, or
                holds what no run can have saved.
        """
        require_version(self._called, state, STATE_VERSION)
        progress = progress_in(state, self._called)
        saved = state["monitor"], state["mode"]
        if saved != (self.monitor, self.rule.mode):
            log.warning(
                "%s: the checkpoint watched %r (%s), this run watches %r (%s); "
                "its progress starts afresh",
                *(self._called, *saved, self.monitor, self.rule.mode),
            )
            self._reset()
            return
        self.progress = progress
        self._weights.copy = state.get("weights")
        self._weights.loss = state.get("loss")

    def _see_end(self, trainer: Trainer, value: float) -> None:
        """Let weights that are the best at the run's end be that; decide nothing."""
        self._end = replace(self.progress)
        self._check(self._end, trainer, value)

    def _check(self, progress: Progress, trainer: Trainer, value: float) -> bool:
        """Count a value of now; return whether it is the best one seen."""
        mode, min_delta = self.rule.mode, self.rule.min_delta
        return progress.check(value, mode, min_delta, trainer.step, trainer.epoch)

    def _reset(self) -> None:
        self.progress, self._end = Progress(), None
        self._weights.drop()

    def _cause(self, trainer: Trainer, is_nonfinite: bool) -> Cause | None:
        return self.rule.cause(self.progress, is_nonfinite, trainer.epoch, trainer.step)
