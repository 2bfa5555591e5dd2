"""Say in a file that a run was ended by a signal, and what it goes on from.

Where several processes compute a run, the launcher ends with a code of its own whatever
theirs is: a job script that is to start a run again looks for this file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from training.plugin import sweep_leftovers, write_json

if TYPE_CHECKING:
    from trainbus_checkpointing.store import Store
    from training import Trainer

log = logging.getLogger(__name__)

RESUMABLE = "RESUMABLE"


def write(trainer: Trainer, store: Store, error: BaseException | None) -> None:
    """Write it into ``trainer.save_dir``, also if no checkpoint was saved yet.

    Args:
        trainer: of a run that was told to end by a signal.
        store: of its checkpoints.
        error: what has ended it; where it is a mistake and nothing was saved, a run
            that is started again would come to it again.
    """
    file = store.path("last") or trainer.resumed_from
    leaves = isinstance(error, SystemExit | KeyboardInterrupt)
    # Another process may have left for a signal: its code is in this one's error.
    if file is None and not leaves and getattr(error, "exit_code", 1) <= 128:
        return
    signal = str(trainer.stop_reason).partition(" ")[0]  # "SIGTERM received"
    step = trainer.step if store.last is None else store.last.step
    content = {"signal": signal, "step": step, "file": file and str(file)}
    try:
        write_json(Path(trainer.save_dir) / RESUMABLE, content)
    except OSError as error:  # the run itself is saved
        log.warning("checkpointing: %s could not be written: %s", RESUMABLE, error)


def remove(trainer: Trainer) -> None:
    """Take it away: a run has begun, which nobody can refuse any more."""
    if not trainer.is_main:
        return
    save_dir = Path(trainer.save_dir)
    try:
        (save_dir / RESUMABLE).unlink(missing_ok=True)
        if save_dir.is_dir():
            sweep_leftovers(save_dir, [RESUMABLE])
    except OSError as error:
        log.warning("checkpointing: an old %s stays: %s", RESUMABLE, error)
