"""Name what a run moves in Python, and in modules that nobody saves.

Nobody reads the code: what moves between saves is named, whatever it is for.
"""

from __future__ import annotations

import logging

from training.modules.plain_names import some
from training.modules.unsaved_holders import Marks, UnsavedHolders

log = logging.getLogger(__name__)


class UnsavedNumbers:
    """Which numbers and tensors have moved since this was made, and between saves.

    Optimizers and random generators in the optimizer are warned of at once.

    Args:
        holders: what has them.
    """

    def __init__(self, holders: UnsavedHolders) -> None:
        self._holders = holders
        self._has_told_inner = self._warns_of_inner()
        self._before = holders.marks()
        self._trained: Marks | None = None
        self._moved: set[str] = set()
        self._told: set[str] = set()

    def look(self, saves: bool = False) -> None:
        """Let the next save compare what is there now; call it before evaluations.

        What these leave has no graph, and would pass for numbers of training. Waits for
        the device once a tensor, but only at the first call after a save: what moves
        later counts with the save after that, and a run may never save.

        Args:
            saves: look in any case, since a save follows at once. An earlier look, at
                the end of an epoch, would miss what begins anew in each.
        """
        if saves or self._trained is None:
            self._trained = self._holders.marks()

    def warn_of_moved(self) -> None:
        """Warn, once of each, of those that have moved between saves, twice.

        Once may be a cache that was filled. The two need not follow each other: what
        counts epochs rests between saves inside of one. Looks first, if nobody has
        since the last save.
        """
        # Again: before its first step an inner optimizer may have no state to compare.
        self._has_told_inner = self._has_told_inner or self._warns_of_inner()
        now = self._holders.marks() if self._trained is None else self._trained
        before, self._before, self._trained = self._before, now, None
        moved = {key[0] for key, mark in now.items() if before.get(key, mark) != mark}
        if not moved:  # nothing was trained since the last save
            return
        again = sorted((moved & self._moved) - self._told)
        if again:
            log.warning(
                "training moves numbers that no checkpoint holds, since they are plain "
                "attributes or variables: %s; a resumed run begins with others, and is "
                "another run where they decide about training; keep each of a module "
                "in a buffer, or return it from get_extra_state(), each of the "
                "optimizer in a group or in its state, each of a step_fn or loss_fn in "
                "a buffer of a module that it uses, each of a hook, sampler, collate "
                "function or data set, and a module that is no submodule, in a "
                "callback's state_dict(), or set an epoch that one counts in a "
                "set_epoch(epoch) of its own, and call persistent(True) of a metric; "
                "what nothing in training reads needs nothing, as a loss that is kept "
                "for a log, nor what is set anew before it is read",
                some(again),
            )
            self._told.update(again)
        self._moved |= moved

    def _warns_of_inner(self) -> bool:
        """Warn of optimizers and generators in the optimizer, unless it saves them."""
        if inner := self._holders.in_optimizer():
            log.warning(
                "the %s keeps %s, whose state no checkpoint holds, so that a resumed "
                "run is another one: return it from its state_dict(), and take it back "
                "in load_state_dict()",
                *(type(self._holders.optimizer).__name__, some(inner)),
            )
        return bool(inner)
