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
    "test_r1_a_run_saved_without_workers_resumes_equal_with_two",
    "test_r2_a_boundary_resume_runs_exactly_the_remaining_batches",
    "test_a_loader_resumes_to_the_same_state",
}
IN_PLACE, AHEAD = "as it is read", "one batch ahead"


def one_ahead(*arguments: Any) -> Iterator[Any]:
    """Yield what ``device_batches`` does, each when the next one has been read."""
    before: list[Any] = []
    for each in batches.device_batches(*arguments):
        yield from before
        before = [each]
    yield from before


@pytest.fixture
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read batches as the parameter says."""
    if request.param == AHEAD:
        monkeypatch.setattr("training.feed.feed.device_batches", one_ahead)


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
