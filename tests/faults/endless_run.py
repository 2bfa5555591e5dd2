"""A run that saves without end, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAINS = """
import sys
from pathlib import Path
from faults.sweep import build
trainer = build(Path(sys.argv[1]), lambda step: print(step, flush=True))
trainer.num_epochs = 10_000
import faults.sweep
faults.sweep.LOSSES = [1.0 / (1 + i % 7) for i in range(10_001)]
{more}
trainer.train()
"""


def training(folder: Path, more: str = "", **environment: str) -> Any:
    """Start a run that saves without end in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAINS.format(more=more), str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
