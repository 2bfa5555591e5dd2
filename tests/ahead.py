"""Reading one batch ahead of the step, as a run on CUDA does, for tests on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from training.feed import batches

ROOT = Path(__file__).resolve().parents[1]
#: Folders and files whose tests are run so, too; by default only those named below.
PLACES = (
    "tests/faults/resuming",
    "tests/faults/leaving/test_workers.py",
    "tests/checkpoint/test_resume.py",
    "plugins/checkpointing/tests",
)
BY_DEFAULT = {
    "test_a_batch_that_was_trained_on_is_gone_when_another_is_read",
    "test_what_is_read_ahead_of_a_step_is_as_the_parameter_says",
    "test_r1_what_a_batch_weighs_is_measured_when_its_turn_has_come",
    "test_r1_a_run_saved_without_workers_resumes_equal_with_two",
    "test_r2_a_boundary_resume_runs_exactly_the_remaining_batches",
    "test_a_loader_resumes_to_the_same_state",
}
IN_PLACE, AHEAD = "as it is read", "one batch ahead"


class InPlace:
    """Copies nothing, where ``SideStream`` copies to the device."""

    def copy(self, batch: Any) -> Any:
        return batch

    def wait_for_copy(self, copied: Any) -> None:
        """There is nothing to wait for."""


def read_ahead(host_batches: Iterator[Any], device: Any, source: Any) -> Iterator[Any]:
    """Return what ``device_batches`` does, each when the next one has been read."""
    if device.type == "cuda":  # the real one
        return batches.device_batches(host_batches, device, source)
    return batches.prefetched(host_batches, InPlace(), source)


# A parameter alone asks for no fixture: pytest follows what the functions name.
@pytest.fixture(autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read batches as the parameter says, in the tests that have one."""
    if getattr(request, "param", IN_PLACE) == AHEAD:
        monkeypatch.setattr("training.feed.feed.device_batches", read_ahead)


@pytest.hookimpl(trylast=True)  # its id comes last
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these places in both ways."""
    path = metafunc.definition.path.relative_to(ROOT)
    if not any(path.is_relative_to(place) for place in PLACES):
        return
    marks = [] if metafunc.function.__name__ in BY_DEFAULT else [pytest.mark.exhaustive]
    metafunc.fixturenames.append("reading")
    ways = [IN_PLACE, pytest.param(AHEAD, marks=marks)]
    metafunc.parametrize("reading", ways, indirect=True)
