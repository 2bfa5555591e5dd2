"""What a checkpoint needs of a trainer, beside what plugins see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from training.view import TrainerView

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.checkpoint.resumption import Resumption
    from training.feed.feed import Feed
    from training.loop.criterion import Criterion
    from training.loop.loop import Loop
    from training.loop.run_state import RunState
    from training.modules.train_mode import Modes

__all__ = ["Checkpointable"]


class Checkpointable(TrainerView, Protocol):
    """A trainer whose state is saved and taken over.

    Attributes:
        bus: calls its plugins.
        criterion: what the loss keeps beside the model.
        modes: which modules are in train and in eval mode while the run trains.
        configured_groups: the optimizer's options as configured, one mapping for each
            parameter group; None before they were looked at.
        state: of the run that is on, was last, or is loaded.
        resumption: what that run goes on from; None: it starts afresh.
        feed: its batches, once they are set up.
        loop: itself, once it has begun.
    """

    bus: Bus
    criterion: Criterion
    modes: Modes
    configured_groups: list[dict[str, Any]] | None
    state: RunState
    resumption: Resumption | None
    feed: Feed | None
    loop: Loop | None
