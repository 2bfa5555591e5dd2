"""When to ask for a stop: the settings of now, applied to the progress so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trainbus_early_stopping.progress import Cause, Progress
from training.plugin import count

if TYPE_CHECKING:
    from training.plugin import PlannedRun


@dataclass(frozen=True)
class StopRule:
    """The settings of ``EarlyStoppingCallback`` that decide about a stop."""

    monitor: str
    patience: int
    min_delta: float
    mode: Literal["min", "max"]
    on_nonfinite: Literal["ignore", "stop"]
    min_epochs: int
    min_steps: int

    def cause(
        self, progress: Progress, is_nonfinite: bool, epoch: int, step: int
    ) -> Cause | None:
        """Return what asks for a stop after the latest check, or None.

        Args:
            progress: that check included.
            is_nonfinite: whether its value was NaN or infinite.
            epoch: completed epochs.
            step: attempted updates.
        """
        if epoch < self.min_epochs or step < self.min_steps:
            return None
        if is_nonfinite and self.on_nonfinite == "stop":
            return "nonfinite"
        return "patience" if progress.wait >= max(self.patience, 1) else None

    def when(self, run: PlannedRun) -> str:
        """Return in one phrase when a planned run could be stopped first."""
        if not run.is_counted:
            return run.uncounted
        for number, check in enumerate(run.checks(self.monitor), 1):
            is_late = check.epoch >= self.min_epochs and check.step >= self.min_steps
            if number > max(1, self.patience) and is_late:
                return f"at the earliest after step {check.step:,}"
        return "never"

    def conflicts(self, run: PlannedRun, name: str) -> list[str]:
        """Return a sentence for each setting that is longer than a planned run."""
        found = []
        checks = run.checks(self.monitor) if run.is_counted else []
        if checks and len(checks) <= max(1, self.patience):
            found.append(
                f"{name}.patience is {self.patience}, but the run has only "
                f"{count(len(checks), 'check')} of {self.monitor}: it can never stop"
            )
        for option, value, limit in (
            ("min_epochs", self.min_epochs, run.num_epochs),
            ("min_steps", self.min_steps, run.total_steps),
        ):
            if value > limit:
                found.append(f"{name}.{option} is {value:,}: longer than the run")
        return found

    def reason(self, cause: Cause, progress: Progress) -> str:
        """Return in one phrase why the run stops."""
        if cause == "nonfinite":
            return f"{self.monitor} is not finite and on_nonfinite is 'stop'"
        checks = f"{progress.wait} check" + ("" if progress.wait == 1 else "s")
        if progress.best_seen is None:
            return f"{self.monitor} has not been finite for {checks}"
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{self.monitor} has not improved{margin} for {checks} "
            f"(best {progress.best_seen:.4g} at epoch {progress.best_epoch})"
        )

    def remedy(self, cause: Cause, progress: Progress) -> str:
        """Return how to go on after such a stop."""
        if cause == "nonfinite":
            return "to go on, set early_stopping.on_nonfinite to 'ignore'"
        return f"to go on, set early_stopping.patience above {progress.wait}"
