"""Say in a file that a run was ended by a signal, and what it goes on from.

Where several processes compute a run, the launcher ends with a code of its own whatever
theirs is: a job script that is to start a run again looks for this file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from training.plugin import write_json

if TYPE_CHECKING:
    from trainbus_checkpointing.store import Store
    from training import Trainer

log = logging.getLogger(__name__)

RESUMABLE = "RESUMABLE"


def write(trainer: Trainer, store: Store) -> None:
    """Write it into ``trainer.save_dir``, if there is a checkpoint to go on from.

    Args:
        trainer: of a run that a signal has ended.
        store: of its checkpoints.
    """
    if store.last is None:
        return
    signal = str(trainer.stop_reason).partition(" ")[0]  # "SIGTERM received"
    file, step = store.path("last"), store.last.step
    content = {"signal": signal, "step": step, "file": str(file)}
    try:
        write_json(Path(trainer.save_dir) / RESUMABLE, content)
    except OSError as error:  # the run itself is saved
        log.warning("checkpointing: %s could not be written: %s", RESUMABLE, error)


def remove(save_dir: Path) -> None:
    """Take it away: a run has begun."""
    try:
        (save_dir / RESUMABLE).unlink(missing_ok=True)
    except OSError as error:
        log.warning("checkpointing: an old %s stays: %s", RESUMABLE, error)
