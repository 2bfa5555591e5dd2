"""What a checkpoint needs of a trainer, beside what plugins see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from training.view import TrainerView

if TYPE_CHECKING:
    from torch import Tensor

    from training.bus.bus import Bus
    from training.checkpoint.resumption import Resumption
    from training.loop.criterion import Criterion
    from training.loop.run_state import RunState
    from training.loop.train_mode import Modes

__all__ = ["Checkpointable"]


class Checkpointable(TrainerView, Protocol):
    """A trainer whose state is saved and taken over.

    Attributes:
        bus: calls its plugins.
        criterion: what the loss keeps beside the model.
        modes: which modules are in train and in eval mode while the run trains.
        configured_groups: the optimizer's options as configured, one mapping for each
            parameter group; None before they were looked at.
    """

    bus: Bus
    criterion: Criterion
    modes: Modes
    configured_groups: list[dict[str, Any]] | None

    @property
    def state(self) -> RunState:
        """The state of the run that is on, was last, or is loaded."""

    @property
    def resumption(self) -> Resumption | None:
        """What the run goes on from, parts of which may be waiting; None: nothing."""

    @property
    def is_in_window(self) -> bool:
        """Whether batches were seen since the last boundary."""

    @property
    def is_evaluating(self) -> bool:
        """Whether metrics are being measured."""

    @property
    def row_is_due(self) -> bool:
        """Whether an epoch has been evaluated whose row is still to come."""

    @property
    def data_state(self) -> list[Tensor]:
        """States of the user's generators that the next batch needs."""

    @property
    def loader_state(self) -> Any:
        """The loader's own state at this boundary, for one that keeps any."""
