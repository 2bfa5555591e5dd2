"""How many passes a run makes that was given a number of them, or of steps."""

from __future__ import annotations

from typing import Any

from training.planned.length import epochs_for, num_windows


class Epochs:
    """``trainer.num_epochs``: what was set, or what ``max_steps`` takes, or 1.

    Told anew each time: only a run that is set up knows how many batches it reads.
    """

    def __get__(self, trainer: Any, _: object) -> int:
        """Return how many passes a run makes in all."""
        given: int | None = vars(trainer)["num_epochs"]
        if given is not None:
            return given
        batches = getattr(trainer, "batches_per_epoch", None)
        window = trainer.gradient_accumulation_steps
        steps = None if batches is None else num_windows(batches, window)
        return epochs_for(trainer.max_steps, steps)

    def __set__(self, trainer: Any, value: int | None) -> None:
        """Set a number of passes, or None."""
        vars(trainer)["num_epochs"] = value


def epoch_limit(trainer: Any) -> int:
    """Return after how many epochs a run ends, if its steps do not end it before."""
    return vars(trainer)["num_epochs"] or trainer.max_steps or 1


def planned_end(trainer: Any) -> str:
    """Return which limit has ended a run."""
    given, most = vars(trainer)["num_epochs"], trainer.max_steps
    if most is not None and (given is None or trainer.epoch < given):
        return f"max_steps={most} reached"
    return f"num_epochs={trainer.num_epochs} reached"
