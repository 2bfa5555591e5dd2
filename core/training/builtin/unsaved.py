"""Tell of what a run draws from or moves, and no checkpoint holds.

Each kind has a file that begins with ``unsaved_``, in the room of what holds it:
buffers, numbers and hooks in ``modules/``, parts of a loader, generators in ``feed/``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from training.bus.callback import Callback
from training.feed.unsaved_generators import (
    warn_of_drawn,
    warn_of_generators,
    warn_of_validation,
)
from training.feed.unsaved_in_loader import numbers_in
from training.modules.reachable import Found
from training.modules.unsaved_buffers import UnsavedBuffers
from training.modules.unsaved_holders import UnsavedHolders
from training.modules.unsaved_in_hooks import held_by_hooks
from training.modules.unsaved_numbers import UnsavedNumbers
from training.signals.handlers import warn_of_unheard

if TYPE_CHECKING:
    from training.builtin.resume import Resumable
    from training.feed.epoch_loader import EpochLoader
    from training.loop.run_state import RunState


def watch_unsaved(
    trainer: Resumable, state: RunState, order: EpochLoader, validation: Iterable[Any]
) -> None:
    """Warn of what is drawn and in no checkpoint; let ``state`` watch what may move."""
    if trainer.is_main and trainer.bus.listeners("resume_candidates"):
        warn_of_unheard()
    warn_of_generators(order)
    for loader in {id(each): each for each in validation}.values():
        warn_of_validation(loader)
    # A plugin that has a generator is trusted to keep its state.
    warn_of_drawn(
        trainer.criterion.generators,
        [*order.generators, *_held_by(trainer.plugins.values())],
    )
    modules = {"model": trainer.model, **trainer.criterion.held_modules()}

    def beside() -> tuple[Found, list[Any]]:
        held = [(_has_state(p), _held_by([p])) for p in trainer.plugins.values()]
        kept = [each for saves, parts in held if saves for each in parts]
        found = trainer.criterion.reached(kept)
        more = held_by_hooks(modules, trainer.optimizer, kept)
        more += numbers_in(order, kept)
        # Modules that the criterion reaches are saved or told of by it, but a plugin's.
        others = {id(each) for _, parts in held for each in parts}
        reached = [each for _, each in found if isinstance(each, nn.Module)]
        return found + more, kept + [m for m in reached if id(m) not in others]

    numbers = UnsavedNumbers(UnsavedHolders(modules, trainer.optimizer, beside))
    state.unsaved.extend((UnsavedBuffers(modules), numbers))
    first = state.progress.step

    def look() -> None:
        saves = "checkpoint" in state.requests.asked
        if saves or state.progress.step > first:  # else nothing was trained yet
            numbers.look(saves)

    state.before_evaluation.append(look)


def _held_by(plugins: Iterable[Any]) -> list[Any]:
    """Return plugins and their attributes."""
    parts = [vars(each).values() for each in plugins if hasattr(each, "__dict__")]
    return [*plugins, *itertools.chain.from_iterable(parts)]


def _has_state(plugin: Any) -> bool:
    """Whether it saves something; the method of all callbacks does not."""
    method = getattr(plugin, "state_dict", Callback.state_dict)
    return getattr(method, "__func__", method) is not Callback.state_dict
