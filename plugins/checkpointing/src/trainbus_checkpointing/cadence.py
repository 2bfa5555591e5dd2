"""When a checkpoint is due, and whether as one of the best or only as the last."""

from __future__ import annotations

from dataclasses import dataclass

#: The kernel's, where an epoch is over.
REASON_EPOCH = "epoch_end"
# Reasons of our own requests; any other request means: save, whatever the cadence.
REASON_STEPS = "checkpointing.every_n_steps"
REASON_BEST = "checkpointing.monitor is among the best"
_CADENCE_REASONS = frozenset({REASON_EPOCH, "stop", REASON_STEPS, REASON_BEST})


@dataclass(frozen=True)
class Boundary:
    """Where training stands when ``on_checkpoint`` fires.

    Attributes:
        reason: that of ``on_checkpoint``.
        epoch: completed epochs.
        step: attempted updates.
        is_stopping: whether it is the last boundary of the run.
        is_interrupted: whether a signal, or an evaluation that failed, ended the run:
            it is to be resumed.
    """

    reason: str
    epoch: int
    step: int
    is_stopping: bool
    is_interrupted: bool = False

    @property
    def is_asked_for(self) -> bool:
        """Whether others than the cadence ask for it: reasons are joined."""
        return not _CADENCE_REASONS.issuperset(self.reason.split("; "))

    @property
    def is_mid_epoch(self) -> bool:
        """Whether an epoch is under way."""
        return self.reason != REASON_EPOCH


@dataclass(frozen=True)
class Cadence:
    """The settings that say when to save; ``ModelCheckpointCallback`` explains them."""

    save_best_only: bool
    save_frequency: int
    frequency_applies_to_best: bool
    save_last: bool
    every_n_steps: int | None

    def is_step_due(self, step: int) -> bool:
        """Whether a save inside an epoch is due at ``step``."""
        return self.every_n_steps is not None and step % self.every_n_steps == 0

    def is_due(self, at: Boundary) -> bool:
        """Whether ``save_frequency`` or ``every_n_steps`` calls for a save."""
        if at.reason == REASON_EPOCH and at.epoch % self.save_frequency == 0:
            return True
        return self.is_step_due(at.step)

    def wants_ranked(self, at: Boundary, is_candidate: bool) -> bool:
        """Whether to write a checkpoint that competes for the best.

        Args:
            at: the boundary.
            is_candidate: a fresh value would enter the best k.
        """
        if not self.save_best_only:
            return self.is_due(at)
        return is_candidate and (not self.frequency_applies_to_best or self.is_due(at))

    def wants_last(self, at: Boundary) -> bool:
        """Whether to write a checkpoint just so that training can go on from here."""
        if at.is_interrupted or at.is_asked_for:
            return True
        return self.save_last and (at.is_stopping or self.is_due(at))
