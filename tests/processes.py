"""Python in a process of its own, with what this one can import."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python ...`` on one thread to its end, whatever its exit code is."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def printed_by(code: str) -> str:
    """Return what ``code`` prints when it runs in a fresh process."""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
