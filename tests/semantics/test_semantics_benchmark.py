"""The comparison with other trainers runs, and trainbus is right in every case."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "semantics.py"


@pytest.mark.slow
def test_trainbus_is_right_in_every_case(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), "--check"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "trainbus" in run.stdout.splitlines()[0]
