"""Which folder the curves of a run are in, among those of other runs."""

from __future__ import annotations

import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)

#: What ``free_run_name`` returns.
RUN_NAME = re.compile(r"(?:run-[0-9]+)?")
#: Letters of the run's folder in its name.
MOST_LETTERS = 60


def folder_of(log_dir: Path, save_dir: Path, run_name: str) -> Path:
    """Return the folder of a run: named like ``save_dir``, with the run's number."""
    name = re.sub(r"[^\w.-]+", "-", save_dir.absolute().name)
    usual = name.lstrip(".-")[:MOST_LETTERS] or "run"
    return log_dir / (usual + run_name.removeprefix("run"))


def has_curves(folder: Path) -> bool:
    """Whether event files lie in ``folder`` itself."""
    return any(folder.glob("events.out.tfevents.*"))


def moved_along(folder: Path, run_name: str) -> Path:
    """Return ``folder``, or where it has no curves those of before it was renamed.

    Args:
        folder: of the curves of a resumed run, inside of its ``save_dir``.
        run_name: of that run; the name of ``folder`` ends in its number.
    """
    if has_curves(folder):
        return folder
    number = run_name.removeprefix("run")
    usual = re.escape(folder.name.removesuffix(number))
    found = [
        path
        for path in folder.parent.glob(f"*{number}")
        if has_curves(path) and not re.fullmatch(rf"{usual}(-\d+)?", path.name)
    ]
    return found[0] if len(found) == 1 else folder  # of several, nobody can tell


def free_run_name(log_dir: Path, save_dir: Path) -> str:
    """Return ``""``, or the first ``run-N`` whose folder holds no curves."""
    name, number = "", 1
    while has_curves(folder_of(log_dir, save_dir, name)):
        number += 1
        name = f"run-{number}"
    if number > 1:
        logger.info("%s holds curves of this run already; it is %s", log_dir, name)
    return name
