"""How a run ends: all are told of a failure, all are closed, the first error stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from training.bus.slots import RAISED_BY
from training.errors import NonFiniteError
from training.messages.error_texts import add_note, notes_of, repr_of
from training.signals.handlers import signal_of

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable
    from training.feed.workers import Watched
    from training.loop.loop import Loop

__all__ = ["note_batches", "tear_down"]

#: Batches of a window that are told one by one.
MOST_PLACES = 4


def note_batches(
    error: BaseException, loop: Loop | None, watched: Watched | None
) -> None:
    """Note on ``error`` the step, and the batches, whose computing raised it.

    Args:
        error: ends the run. It stays as it is where no batch was being computed, or a
            hook raised it then, and no value is not finite; and where memory was short:
            ``memory_advice`` explains.
        loop: of the run, if it has begun.
        watched: its batches, where they come from indices.
    """
    if loop is None or isinstance(error, torch.OutOfMemoryError):
        return
    at, failed = loop.state.progress, loop.failed_batch
    is_of_hook = any(note.startswith(RAISED_BY) for note in notes_of(error))
    numbers = range(0)
    if failed is not None and not is_of_hook:
        numbers = range(failed, failed + 1)
    elif isinstance(error, NonFiniteError):  # the counters are from before the window
        end = at.batch + loop.trainer.gradient_accumulation_steps
        numbers = range(at.batch, min(end, loop.reached))
    if not numbers:  # also of somebody's own ``NonFiniteError`` between two windows
        return
    places = [
        f"batch {number} of the epoch" if watched is None else watched.place(number)
        for number in numbers
    ]
    if len(places) > MOST_PLACES:
        places = [f"batches {numbers[0]} to {numbers[-1]} of the epoch"]
    strategy = loop.trainer.strategy
    # Another process may have had the bad value.
    is_one_of = failed is None and strategy.is_divided
    begin = f"; rank {strategy.rank} had" if is_one_of else ":"
    add_note(error, f"in step {at.step + 1}{begin} {'; '.join(places)}")


def tear_down(
    trainer: Checkpointable, failure: BaseException | None, watched: Watched | None
) -> BaseException | None:
    """Tell plugins of ``failure`` and close them; return what is to be raised.

    Hooks observe a failure and never hide it: what they raise becomes a note. Where
    there was none, the first that is raised in closing is one. The strategy closes
    last: it tells the other processes what came of it all.
    """
    bus, measuring = trainer.bus, trainer.state.requests.let_go()
    if measuring is not None and isinstance(failure, Exception):
        failure = _joined(measuring, failure, "saving what was trained before it")
    elif measuring is not None and failure is not None:  # the user does not wait
        add_note(failure, f"an evaluation had failed: {repr_of(measuring)}")
    try:
        if failure is not None:
            from training.feed.lost_workers import kill_held  # in a run that fails

            kill_held(failure)
            failure = _reported(trainer, _explained(failure, watched))
            # Only now: where all have agreed on it, nobody is told.
            if (number := signal_of(failure)) is not None:
                trainer.state.requests.leave_for_signal(number)
            for later in bus.call_all("on_exception", trainer=trainer, error=failure):
                failure = _joined(failure, later, "on_exception")
    finally:  # also when the user does not want to wait for the above
        closing = bus.call_all("on_close", trainer=trainer)
    is_told = failure is not None
    for later in closing:
        failure = _joined(failure, later, "on_close")
    try:
        if failure is not None and not is_told:
            failure = _reported(trainer, failure)
    except BaseException as later:  # the user does not want to wait for that
        failure = _joined(failure, later, "telling the others")
    try:
        trainer.strategy.close(failure)
    except BaseException as later:
        failure = _joined(failure, later, "closing the strategy")
    return failure


def _joined(
    failure: BaseException | None, later: BaseException, place: str
) -> BaseException:
    if failure is None:
        return later
    if failure is not later:
        add_note(failure, f"then {place} failed: {repr_of(later)}")
    return failure


def _explained(error: BaseException, watched: Watched | None) -> BaseException:
    """Return ``error`` with what a person needs, or what to raise in its place."""
    try:
        loss: BaseException | None = None if watched is None else watched.loss(error)
    except Exception as later:
        add_note(error, f"then explaining it failed: {repr_of(later)}")
        return error
    if loss is None:
        return error
    loss.__cause__ = error
    return loss


def _reported(trainer: Checkpointable, error: BaseException) -> BaseException:
    """Tell the other processes at once; return what is to be raised."""
    try:
        told = trainer.strategy.report(error)
    except Exception as later:
        add_note(error, f"then telling the others failed: {repr_of(later)}")
        return error
    if told is not error:
        told.__cause__ = error
    return told
