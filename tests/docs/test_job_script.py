"""The job script of docs/resuming.md starts again what a signal ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "resuming.md"


def script() -> str:
    """Return the code block that submits itself."""
    blocks = PAGE.read_text().split("\n\n")
    (block,) = (each for each in blocks if each.startswith("    ") and "sbatch" in each)
    return "\n".join(line.strip() for line in block.splitlines())


@pytest.mark.parametrize(
    ("run", "goes_on"),
    [
        pytest.param("exit 0", False, id="it has ended"),
        pytest.param("exit 4", False, id="it is refused as it resumes"),
        pytest.param("exit 143", True, id="a signal came while it was built"),
        pytest.param("echo {} > runs/RESUMABLE; exit 1", True, id="torchrun hides it"),
        pytest.param("echo {} > runs/RESUMABLE; exit 143", True, id="one process"),
    ],
)
def test_the_job_script_starts_again_what_a_signal_ended_and_nothing_else(
    tmp_path: Path, run: str, goes_on: bool
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "RESUMABLE").write_text("of the run before")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (("torchrun", run), ("sbatch", "touch submitted")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", script()],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        timeout=60,
        check=False,
    )
    assert (tmp_path / "submitted").exists() == goes_on
