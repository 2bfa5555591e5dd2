"""The validation batches as evaluators read them during a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from training.plugin import batches_of, draw_as_if_new, num_batches

if TYPE_CHECKING:
    from training import Trainer


class WhileStaying:
    """The validation batches of ``loader`` until a signal makes the run leave.

    Who listens hears after each how far they are.

    Attributes:
        done: batches that were read so far, the one that is being measured among them.
    """

    def __init__(self, trainer: Trainer, loader: Iterable[Any], name: str) -> None:
        self.loader = loader
        self._trainer = trainer
        self._name = name
        self.done = 0

    def __iter__(self) -> Iterator[Any]:
        trainer, tell = self._trainer, self._trainer.bus.evaluation_progress
        self.done = 0
        total = num_batches(self.loader)
        if tell is not None:
            tell(trainer, 0, total, self._name)
        draw_as_if_new(self.loader)
        for done, batch in enumerate(batches_of(self.loader), 1):
            self.done = done
            trainer.abandon_if_leaving()
            yield batch
            if tell is not None:
                tell(trainer, done, total, self._name)
