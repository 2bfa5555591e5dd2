"""What a checkpoint needs of a trainer, beside what plugins see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from training.view import TrainerView

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.feed.feed import Feed
    from training.loop.criterion import Criterion
    from training.loop.loop import Loop
    from training.loop.run_state import RunState


class PendingRestore(Protocol):
    """What was loaded and waits for the run to take it over: see ``Resumption``.

    Attributes:
        parked: the parts that are still to be taken over.
        is_taken: whether the optimizer and the plugins have their states.
    """

    parked: dict[str, Any]
    is_taken: bool


class Checkpointable(TrainerView, Protocol):
    """A trainer whose state is saved and taken over.

    Attributes:
        bus: calls its plugins.
        criterion: what the loss keeps beside the model.
        configured_groups: the optimizer's options as configured, one mapping for each
            parameter group; None before they were looked at.
        state: of the run that is on, was last, or is loaded.
        feed: its batches, once they are set up.
        loop: itself, once it has begun.
    """

    bus: Bus
    criterion: Criterion
    configured_groups: list[dict[str, Any]] | None
    state: RunState
    feed: Feed | None
    loop: Loop | None

    @property
    def resumption(self) -> PendingRestore | None:
        """What the run goes on from; None: it starts afresh."""
