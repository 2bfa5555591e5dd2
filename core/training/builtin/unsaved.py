"""Tell of what a run draws from or moves, and no checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from training.feed.unsaved_generators import (
    warn_of_drawn,
    warn_of_generators,
    warn_of_validation,
)
from training.modules.unsaved_buffers import UnsavedBuffers
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
    plugins = [getattr(each, "__dict__", {}) for each in trainer.plugins.values()]
    kept = [part for attributes in plugins for part in attributes.values()]
    warn_of_drawn(trainer.criterion.generators, [*order.generators, *kept])
    modules = {"model": trainer.model, **trainer.criterion.held_modules()}
    beside = partial(trainer.criterion.reached, [*trainer.plugins.values(), *kept])
    numbers = UnsavedNumbers(modules, trainer.optimizer, beside)
    state.unsaved.extend((UnsavedBuffers(modules), numbers))
    state.before_evaluation.append(numbers.look)
