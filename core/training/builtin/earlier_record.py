"""Put the record of an earlier run aside, in one piece."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from training.files.durable import rename_durably
from training.files.record_names import RECORD
from training.files.report_page import REPORT, is_report

log = logging.getLogger(__name__)

EARLIER = "earlier"
#: Where a record is on its way there; hidden: half of one is no run to be shown.
MOVING = ".moving"
#: What a command makes of a run's weights, and another one looks for beside its record.
MADE_OF_IT = "predictions.json*"


def put_aside(folder: Path) -> None:
    """Move the record of an earlier run to ``earlier/NNN``, the next free number.

    What was made of its weights goes along: it would be taken for the new run's.

    Args:
        folder: of both runs, in which ``take_back`` has been called.
    """
    old = [path for name in RECORD if (path := folder / name).exists()]
    if not old:
        return
    # By suffix, too: a file that is being written has another one.
    old += [p for p in folder.glob(MADE_OF_IT) if p.suffix.startswith(".json")]
    old += [page for page in [folder / REPORT] if is_report(page)]
    moving = folder / EARLIER / MOVING
    moving.mkdir(parents=True)
    for path in old:
        path.rename(moving / path.name)
    target = _numbered(moving)
    log.warning("%s holds an earlier run; its record is kept in %s", folder, target)


def take_back(folder: Path) -> None:
    """Undo a move in which a run was killed: half a record is nobody's."""
    moving = folder / EARLIER / MOVING
    if not moving.is_dir():
        return
    for path in sorted(moving.iterdir()):
        if not os.path.lexists(folder / path.name):  # nothing is written over
            path.rename(folder / path.name)
    if any(moving.iterdir()):
        _numbered(moving)
    else:
        moving.rmdir()


def _numbered(moving: Path) -> Path:
    """Give a folder the next free number; return where it is then."""
    number = 1
    while (target := moving.with_name(f"{number:03d}")).exists():
        number += 1
    return rename_durably(moving, target)
