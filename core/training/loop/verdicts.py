"""Attempts whose outcome only the device knew when they were made."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from training.errors import NonFiniteError

if TYPE_CHECKING:
    from training.hardware.readback import Readback
    from training.loop.progress import Progress

# What became of an attempt. The flag that a gradient check sets on the device is 1.0.
APPLIED, NONFINITE, SKIPPED = 0, 1, 2
#: Attempts that the host may be ahead of the device.
MOST_UNSETTLED = 16


class Verdicts:
    """What became of each attempt, counted as soon as the host knows it.

    Args:
        progress: the counters.
        may_be_early: whether one is taken as soon as it has arrived: on one of several
            processes that may be another step than on the others.
    """

    def __init__(self, progress: Progress, may_be_early: bool = True) -> None:
        self._progress = progress
        self._may_be_early = may_be_early
        self._unsettled: deque[tuple[tuple[Any, ...], Readback]] = deque()

    @property
    def num_applied(self) -> int:
        """Applied updates that are not counted yet; may wait for the device."""
        return sum(verdict.value() == APPLIED for _, verdict in self._unsettled)

    def add(self, verdict: Readback) -> None:
        """Note an attempt that the counters do not hold yet; take what has arrived."""
        at = self._progress  # without what verdicts count
        sums = at.loss_sum, at.weight_sum, at.part_sums
        before = at.step, at.batch, at.lr, *sums
        self._unsettled.append((before, verdict))
        self.settle(wait=False)

    def settle(self, wait: bool = True) -> None:
        """Count attempts by their verdicts.

        Args:
            wait: for all of them; False: take those that have arrived, or are due.
        Raises:
            NonFiniteError: one met a value that is not finite. It and all that came
                after it left the weights alone; the counters go back to before it.
        """
        while self._unsettled:
            before, verdict = self._unsettled[0]
            # So many steps, and no more, are made in vain after a bad loss.
            is_late = len(self._unsettled) > MOST_UNSETTLED
            if not (wait or is_late or (self._may_be_early and verdict.is_here)):
                return
            outcome = verdict.value()
            if outcome == NONFINITE:
                at = self._progress
                at.step, at.batch, at.lr, *sums = before
                at.loss_sum, at.weight_sum, at.part_sums = sums
                # The device's note stays set, so no later attempt has moved a weight.
                self._unsettled.clear()
                from training.feed.bad_values import refusal  # in a run that fails

                raise NonFiniteError(refusal("a loss or gradient is NaN or infinite"))
            self._unsettled.popleft()
            self._progress.count(outcome == APPLIED)
