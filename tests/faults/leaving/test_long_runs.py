"""P9: no growth over thousands of steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import python

Record = Callable[[str, object], None]

#: In a process of its own: those that other tests have left open would be counted.
SCRIPT = Path(__file__).with_name("long_run.py")


def more(files: list[str], than: list[str]) -> list[str]:
    """Return what is open beside ``than``, as often as it is."""
    return [*(Counter(files) - Counter(than)).elements()]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("steps", "is_async"),
    [
        pytest.param(1_000, False, id="1,000 steps"),
        pytest.param(1_000, True, id="1,000 steps, saving in a thread"),
        pytest.param(20_000, False, id="20,000 steps", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.timeout(1800)
def test_p9_steps_saves_evaluations_and_logs_leave_nothing_open_and_no_memory(
    tmp_path: Path, steps: int, is_async: bool, record_property: Record
) -> None:
    done = python(str(SCRIPT), str(tmp_path), str(steps), str(is_async))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["during"]) == 20
    files, threads, sizes = zip(*found["during"][5:], strict=True)
    record_property("steps", steps)
    # At any one moment the thread of tensorboard may have its file open, to flush it,
    # and a thread that saves its file and its folder.
    allowed = 1 + 2 * is_async
    least = min(files, key=len)
    assert all(len(more(each, least)) <= allowed for each in files), files
    assert min(map(len, files[-5:])) == len(least), files
    assert max(threads) <= min(threads) + is_async
    assert sizes[-1] < 1.05 * sizes[0]
    (before, threads_before, _), (after, threads_after, _) = (
        found[when] for when in ("before", "after")
    )
    assert more(after, before) == []
    assert threads_after == threads_before
