"""When an attempt is counted whose outcome only the device knew."""

from __future__ import annotations

import pytest

from training import NonFiniteError
from training.hardware.readback import Readback
from training.loop.progress import Progress
from training.loop.verdicts import APPLIED, MOST_UNSETTLED, NONFINITE, Verdicts


def added(verdicts: Verdicts, progress: Progress, outcome: float = APPLIED) -> None:
    """Make an attempt whose outcome has arrived already."""
    verdicts.add(Readback(float(outcome)))
    progress.step += 1


def test_alone_a_verdict_counts_as_soon_as_it_has_arrived() -> None:
    progress = Progress()
    verdicts = Verdicts(progress)
    added(verdicts, progress)
    assert progress.update == 1


def test_d13_of_several_processes_it_counts_after_a_fixed_number_of_windows() -> None:
    progress = Progress()
    verdicts = Verdicts(progress, may_be_early=False)
    for _ in range(MOST_UNSETTLED):
        added(verdicts, progress)
    assert progress.update == 0, "whether it has arrived is a matter of time"
    added(verdicts, progress)
    assert progress.update == 1
    assert progress.update + verdicts.num_applied == MOST_UNSETTLED + 1
    verdicts.settle()
    assert progress.update == MOST_UNSETTLED + 1


def test_d13_a_bad_value_ends_all_at_the_same_step() -> None:
    progress = Progress()
    verdicts = Verdicts(progress, may_be_early=False)
    added(verdicts, progress, NONFINITE)
    for _ in range(MOST_UNSETTLED - 1):
        added(verdicts, progress)
    with pytest.raises(NonFiniteError):
        added(verdicts, progress)
    assert progress.step == 0
