"""A turn to save that a kill took from a keeper: told by what the run had listed.

At a boundary the keepers of a run save one after another. Where it died in between, it
goes on from a file that one of them wrote there; what another one had still to write is
a copy of that file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainbus_checkpointing.cadence import REASON_EPOCH, REASON_STEPS, Boundary
from trainbus_checkpointing.retention import Entry
from trainbus_checkpointing.saved import Resumed
from training.plugin import FrozenWeights, is_whole, peek_state

if TYPE_CHECKING:
    from trainbus_checkpointing.store import Store
    from training import Trainer

log = logging.getLogger(__name__)


def missed_turn(
    trainer: Trainer, resumed: Resumed, store: Store, listed: Sequence[Entry]
) -> Boundary | None:
    """Return the boundary that was resumed, where the run died before its turn here.

    Args:
        trainer: of the run that goes on.
        resumed: what tells which one that is.
        store: of the keeper.
        listed: what it has of the run, also what came after that boundary.
    """
    is_anothers = resumed.is_kept and not any(
        store.is_at(path.parent) for path in resumed.paths
    )
    is_listed_elsewhere = resumed.known and not listed
    had_it = any((each.epoch, each.step) >= resumed.position for each in listed)
    if not is_anothers or is_listed_elsewhere or had_it or not trainer.step:
        return None
    reason = REASON_STEPS if trainer.batches_seen else REASON_EPOCH
    return Boundary(reason, *resumed.position, trainer.is_stopping)


def can_be_copied(
    trainer: Trainer, draft: Entry, store: Store, frozen: FrozenWeights | None
) -> bool:
    """Return whether the resumed file is what would be written; if not, say so.

    Args:
        trainer: of the run.
        draft: what would be written.
        store: where.
        frozen: what is left out of each file, if anything is.
    """
    source, weights = trainer.resumed_from, trainer.model.parameters()
    assert source is not None, "a run was resumed"
    is_partial = frozen and not all(each.requires_grad for each in weights)
    if source.is_dir() != trainer.strategy.saves_parts:
        why = "one of them is a file and the other a folder"
    elif is_whole(peek_state(source)) == bool(is_partial):
        why = "one of them holds all weights and the other the trained alone"
    else:
        return True
    log.warning(
        "checkpointing: the run ended before it had written %s, for epoch %d, step "
        "%d, to %s, and it is not made up from %s: %s; copy that if you need it",
        *(draft.file, draft.epoch, draft.step, store.folder, source, why),
    )
    return False
